// What plays on the video element: a camera, a file, or the bundled sample; one at a time.

import { facesUser, openCamera } from './camera.js';

export const SAMPLE_URL = 'data/sample.mp4';
/** How long a file may take to show its first picture. */
const FIRST_PICTURE_MS = 15000;

export class Source {
  /**
   * @param {HTMLVideoElement} video
   * @param {{onLost: () => void, onMuted: (muted: boolean) => void}} owner camera unplugged; camera covered
   *   or taken by a call
   */
  constructor(video, owner) {
    this._video = video;
    this._owner = owner;
    this._stream = null;
    /** Made of the file that plays; null until it is asked for. */
    this._captured = null;
    this._fileUrl = null;
    this._attempt = 0;
    /** @type {null | 'camera' | 'file' | 'sample'} */
    this.kind = null;
    this.name = '';
    /** Id of the open camera, and whether it looks at its user. */
    this.cameraId = '';
    this.facesUser = false;
  }

  /** @param {{deviceId?: string, facing?: 'user' | 'environment'}} wish */
  async openCamera(wish) {
    this.close(); // a phone gives out one camera at a time
    const attempt = this._attempt;
    const stream = await openCamera(wish);
    if (attempt !== this._attempt) {
      stopTracks(stream);
      return;
    }
    this._stream = stream;
    const [track] = stream.getVideoTracks();
    track.onended = () => this._owner.onLost();
    track.onmute = () => this._owner.onMuted(true);
    track.onunmute = () => this._owner.onMuted(false);
    this.kind = 'camera';
    this.name = track.label || 'Camera';
    this.cameraId = track.getSettings().deviceId ?? '';
    this.facesUser = facesUser(track);
    this._video.srcObject = stream;
    await this._video.play();
  }

  /** What plays, as a stream that can be sent; null where the browser cannot make one of a file. */
  get stream() {
    if (this._stream) return this._stream;
    if (!this.kind) return null;
    this._captured ??= this._video.captureStream?.() ?? this._video.mozCaptureStream?.() ?? null;
    return this._captured;
  }

  /** @param {File} file */
  async openFile(file) {
    this.close();
    this._fileUrl = URL.createObjectURL(file);
    await this._openClip(this._fileUrl, 'file', file.name);
  }

  async openSample() {
    this.close();
    await this._openClip(SAMPLE_URL, 'sample', 'Sample');
  }

  /** Stop and release whatever plays. */
  close() {
    this._attempt += 1;
    const video = this._video;
    video.onerror = null;
    video.pause();
    if (this._stream) stopTracks(this._stream);
    if (this._captured) stopTracks(this._captured);
    this._stream = this._captured = null;
    video.srcObject = null;
    if (video.hasAttribute('src')) {
      video.removeAttribute('src');
      video.load();
    }
    if (this._fileUrl) URL.revokeObjectURL(this._fileUrl);
    this._fileUrl = null;
    this.kind = null;
    this.name = '';
    this.cameraId = '';
    this.facesUser = false;
  }

  async _openClip(url, kind, name) {
    const video = this._video;
    const attempt = this._attempt;
    video.src = url;
    video.loop = true;
    await firstPicture(video);
    if (attempt !== this._attempt) return;
    if (!video.videoWidth) throw new DOMException('there is no picture in this file', 'UnplayableError');
    this.kind = kind;
    this.name = name;
    await video.play();
  }
}

function firstPicture(video) {
  return new Promise((resolve, reject) => {
    const refuse = () => reject(new DOMException(video.error?.message || 'no picture', 'UnplayableError'));
    const timer = setTimeout(refuse, FIRST_PICTURE_MS);
    video.onloadeddata = () => {
      clearTimeout(timer);
      resolve();
    };
    video.onerror = () => {
      clearTimeout(timer);
      refuse();
    };
  });
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) {
    track.onended = track.onmute = track.onunmute = null;
    track.stop();
  }
}
