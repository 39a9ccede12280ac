// Plays one source at a time on the video element: a camera, a video file, or the bundled sample.

import { isUserFacing, openCamera } from './camera.js';

export const SAMPLE_URL = 'data/sample.mp4';
/** How long a file may take until its first frame can be shown. */
const FIRST_FRAME_TIMEOUT_MS = 15000;

export class VideoSource {
  /**
   * @param {HTMLVideoElement} video
   * @param {object} owner
   * @param {() => void} owner.onCameraLost the camera was unplugged, or its permission revoked
   * @param {(muted: boolean) => void} owner.onCameraMuted the camera delivers no frames for some time, for example
   *   because it is covered or a call uses it
   */
  constructor(video, owner) {
    this._video = video;
    this._owner = owner;
    /** Stream of the open camera or screen; null: none. */
    this._cameraStream = null;
    /** Stream of the file or sample that plays; null until `mediaStream` is read. */
    this._capturedStream = null;
    this._fileUrl = null;
    /** Changes with each `close`, so that a source that opens too late is discarded. */
    this._generation = 0;
    /** Ends the wait for the first frame of a file; null: nothing waits for one. @type {null | (() => void)} */
    this._abandonFirstFrame = null;
    /** @type {null | 'camera' | 'screen' | 'file' | 'sample'} */
    this.kind = null;
    /** What the source is called: the name of the camera or of the file, or its kind. Empty: there is none. */
    this.name = '';
    /** Device id of the open camera; empty: none. */
    this.cameraId = '';
    this.isUserFacing = false;
  }

  /**
   * @param {{deviceId?: string, facing?: 'user' | 'environment'}} preference
   * @throws {DOMException} see `openCamera` in camera.js
   */
  async openCamera(preference) {
    this.close(); // A phone opens only one camera at a time.
    const generation = this._generation;
    const stream = await openCamera(preference);
    if (generation !== this._generation) {
      stopTracks(stream);
      return;
    }
    const [track] = stream.getVideoTracks();
    this.cameraId = track.getSettings().deviceId ?? '';
    this.isUserFacing = isUserFacing(track);
    await this._playStream(stream, 'camera', track.label || 'Camera');
  }

  /**
   * Show a tab, a window or a screen. The browser asks which.
   * @throws {DOMException} NotAllowedError if the user chose none
   */
  async openScreen() {
    this.close();
    const generation = this._generation;
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: false });
    if (generation === this._generation) await this._playStream(stream, 'screen', 'Screen or tab');
    else stopTracks(stream);
  }

  /** The source as a stream for WebRTC; null without a source, or if the browser cannot capture a file. */
  get mediaStream() {
    if (this._cameraStream) return this._cameraStream;
    if (!this.kind) return null;
    this._capturedStream ??= this._video.captureStream?.() ?? this._video.mozCaptureStream?.() ?? null;
    return this._capturedStream;
  }

  /**
   * @param {File} file
   * @throws {DOMException} UnplayableError if the browser cannot play the file
   */
  async openFile(file) {
    this.close();
    this._fileUrl = URL.createObjectURL(file);
    await this._openUrl(this._fileUrl, 'file', file.name);
  }

  /** @throws {DOMException} UnplayableError if the browser cannot play the sample */
  async openSample() {
    this.close();
    await this._openUrl(SAMPLE_URL, 'sample', 'Sample');
  }

  /** Stop the source and release the camera or file. */
  close() {
    this._generation += 1;
    this._abandonFirstFrame?.();
    this._abandonFirstFrame = null;
    const video = this._video;
    video.pause();
    if (this._cameraStream) stopTracks(this._cameraStream);
    if (this._capturedStream) stopTracks(this._capturedStream);
    this._cameraStream = this._capturedStream = null;
    video.srcObject = null;
    if (video.hasAttribute('src')) {
      video.removeAttribute('src');
      video.load();
    }
    if (this._fileUrl) URL.revokeObjectURL(this._fileUrl);
    this._fileUrl = null;
    this.kind = null;
    this.name = this.cameraId = '';
    this.isUserFacing = false;
  }

  async _playStream(stream, kind, name) {
    this._cameraStream = stream;
    const [track] = stream.getVideoTracks();
    track.onended = () => this._owner.onCameraLost();
    track.onmute = () => this._owner.onCameraMuted(true);
    track.onunmute = () => this._owner.onCameraMuted(false);
    this.kind = kind;
    this.name = name;
    this._video.srcObject = stream;
    await this._video.play();
  }

  async _openUrl(url, kind, name) {
    const video = this._video;
    const generation = this._generation;
    video.src = url;
    video.loop = true;
    await this._firstFrame();
    if (generation !== this._generation) return;
    if (!video.videoWidth) throw new DOMException('the file contains no video', 'UnplayableError');
    this.kind = kind;
    this.name = name;
    await video.play();
  }

  /** Wait for the first frame of the file, or until the source is closed. Throws UnplayableError if none comes. */
  _firstFrame() {
    const video = this._video;
    return new Promise((resolve, reject) => {
      const fail = () => reject(new DOMException(video.error?.message || 'no frame was decoded', 'UnplayableError'));
      const timer = setTimeout(fail, FIRST_FRAME_TIMEOUT_MS);
      const end = (settle) => {
        clearTimeout(timer);
        video.onloadeddata = video.onerror = null;
        settle();
      };
      video.onloadeddata = () => end(resolve);
      video.onerror = () => end(fail);
      this._abandonFirstFrame = () => end(resolve);
    });
  }
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) {
    track.onended = track.onmute = track.onunmute = null;
    track.stop();
  }
}
