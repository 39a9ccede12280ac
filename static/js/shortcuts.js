// Keyboard shortcuts: which key does what, when keys are left to the focused element, and the dialog that lists them.

/** Elements that use letters themselves: no shortcut applies while one of them has the focus. */
const TEXT_ELEMENTS = 'input:not([type=checkbox], [type=radio], [type=range], [type=file]), select, textarea, dialog';
/** Elements that the space bar activates. */
const SPACE_ELEMENTS = 'input, button, summary, a, video[controls]';

/**
 * @typedef {object} Shortcut
 * @property {string} key `event.key` in lower case
 * @property {string} name what the key is called
 * @property {string} text what it does
 * @property {string} presses selector of the control that it presses
 */

/** @type {Shortcut[]} */
export const SHORTCUTS = [
  { key: ' ', name: 'Space', text: 'Pause or resume', presses: '#pause' },
  { key: 's', name: 'S', text: 'Switch between the views', presses: '#view input[data-other]' },
  { key: 'm', name: 'M', text: 'Mirror the video', presses: '#mirror' },
  { key: 'c', name: 'C', text: 'Crop to fill, or show the whole frame', presses: '#fit' },
  { key: 'i', name: 'I', text: 'Save an image', presses: '#snapshot' },
  { key: 'f', name: 'F', text: 'Full screen', presses: '#fullscreen' },
  { key: 'x', name: 'X', text: 'Stop', presses: '#stop' },
  { key: 'escape', name: 'Esc', text: 'Put an enlarged stream back', presses: '.enlarged .enlarge' },
  { key: '?', name: '?', text: 'Show this list', presses: '#shortcuts-button' },
];

/**
 * Return the shortcut of a key press, or null if the key belongs to the browser or to the focused element.
 * @param {{key: string, ctrlKey: boolean, metaKey: boolean, altKey: boolean, target: {closest?: Function}}} event
 * @returns {Shortcut | null}
 */
export function shortcutOf({ key, ctrlKey, metaKey, altKey, target }) {
  if (ctrlKey || metaKey || altKey) return null;
  const shortcut = SHORTCUTS.find((candidate) => candidate.key === key.toLowerCase());
  if (!shortcut || target.closest?.(TEXT_ELEMENTS)) return null;
  return key === ' ' && target.closest?.(SPACE_ELEMENTS) ? null : shortcut;
}

export class Shortcuts {
  /**
   * @param {(enabled: boolean) => void} onEnabled the user turns shortcuts on or off: speech input may produce letters
   */
  constructor(onEnabled) {
    this._dialog = document.getElementById('shortcuts');
    this._switch = document.getElementById('shortcuts-enabled');
    document.getElementById('shortcuts-list').append(...SHORTCUTS.flatMap(createRow));
    document.getElementById('shortcuts-button').addEventListener('click', () => this._dialog.showModal());
    document.getElementById('shortcuts-close').addEventListener('click', () => this._dialog.close());
    this._switch.addEventListener('change', () => onEnabled(this._switch.checked));
    document.addEventListener('keydown', (event) => this._handleKey(event));
  }

  show(enabled) {
    this._switch.checked = enabled;
  }

  _handleKey(event) {
    const shortcut = this._switch.checked && !event.repeat ? shortcutOf(event) : null;
    const control = shortcut && document.querySelector(shortcut.presses);
    // A control that is not shown cannot be pressed, for example those of the toolbar while no source plays.
    if (!control || !(control.labels?.[0] ?? control).getClientRects().length) return;
    event.preventDefault();
    control.click();
  }
}

function createRow({ name, text }) {
  const term = document.createElement('dt');
  const key = document.createElement('kbd');
  key.textContent = name;
  term.append(key);
  const description = document.createElement('dd');
  description.textContent = text;
  return [term, description];
}
