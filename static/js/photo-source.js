// Makes photos a source beside camera, file and sample: takes the user's files and shows them in place of the video.

import { changesDetection } from './detection-parameters.js';
import { FileIntake } from './file-intake.js';
import { predictUrl } from './photo-commands.js';
import { PhotosView } from './photos-view.js';

/**
 * @param {object} page
 * @param {object} page.settings settings of the page; read again at each use
 * @param {() => string} page.key API key; empty: none
 * @param {() => string[]} page.selectedLabels labels of the classes to detect; empty: all
 * @param {import('./playback.js').Playback} page.playback
 * @param {import('./controls.js').Controls} page.controls
 * @returns {PhotosView}
 */
export function createPhotoSource({ settings, key, selectedLabels, playback, controls }) {
  const photos = new PhotosView({
    key,
    url: () => predictUrl(location.href, settings, selectedLabels()),
    onOpen: () => playback.stop(),
    onClose: () => controls.showSource(playback.kind),
    onKeyRequired: () => controls.focusKey(),
  });
  new FileIntake({
    onVideo: (file) => playback.play('file', { file }),
    onPhotos: (files) => {
      photos.add(files);
      controls.showSource('photos');
    },
  });
  return photos;
}

/** Return whether photos have to be analysed again after a change of settings. @param {object} changes */
export function changesPhotos(changes) {
  return changesDetection(changes) || 'version' in changes || 'keep' in changes;
}
