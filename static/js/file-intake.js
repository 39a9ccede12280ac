// Takes files that the user drops, pastes or chooses, and sorts them into photos and a video.

import { isImage } from './photo-analysis.js';

/** Elements into which the user may paste text. */
const TEXT_FIELDS = 'input, textarea';

export class FileIntake {
  /**
   * @param {object} owner
   * @param {(files: {file: File, name: string, isPasted: boolean}[]) => void} owner.onPhotos
   * @param {(file: File) => void} owner.onVideo
   */
  constructor(owner) {
    this._owner = owner;
    this._area = document.querySelector('.main-column');
    this._hint = document.getElementById('drop-hint');
    this._bindChoice('file');
    this._bindChoice('photo-files');
    this._bindDrop();
    document.addEventListener('paste', (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || event.target.closest?.(TEXT_FIELDS)) return;
      event.preventDefault();
      this._take(files, true);
    });
  }

  _bindChoice(id) {
    const input = document.getElementById(id);
    input.addEventListener('change', () => {
      this._take([...input.files], false);
      input.value = ''; // Otherwise choosing the same file again would cause no event.
    });
  }

  _bindDrop() {
    // Without this, the browser would open a file that is dropped beside the area in place of the page.
    for (const name of ['dragover', 'drop']) window.addEventListener(name, (event) => event.preventDefault());
    this._area.addEventListener('dragenter', () => this._showHint(true));
    this._area.addEventListener('dragleave', (event) => {
      if (!this._area.contains(event.relatedTarget)) this._showHint(false);
    });
    this._area.addEventListener('drop', (event) => {
      this._showHint(false);
      this._take([...event.dataTransfer.files], false);
    });
  }

  _showHint(isShown) {
    this._hint.hidden = !isShown;
    this._area.classList.toggle('dropping', isShown);
  }

  _take(files, isPasted) {
    const { photos, video } = sortFiles(files, isPasted);
    if (photos.length) this._owner.onPhotos(photos);
    else if (video) this._owner.onVideo(video);
  }
}

/**
 * Sort files into photos and a video. Only if there is no photo, the first file counts as a video.
 * @param {File[]} files
 * @param {boolean} isPasted
 * @returns {{photos: {file: File, name: string, isPasted: boolean}[], video: File | null}}
 */
export function sortFiles(files, isPasted) {
  const photos = files.filter(isImage).map((file) => ({ file, name: file.name || 'image.png', isPasted }));
  return { photos, video: photos.length ? null : (files[0] ?? null) };
}
