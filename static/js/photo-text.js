// Shows the answer about a photo as JSON, or the commands that repeat it, and copies the text.

import { curlCommand, pythonProgram } from './photo-commands.js';

const CONFIRMATION_MS = 2000;

export class PhotoText {
  /** @param {() => boolean} needsKey whether the server requires an API key */
  constructor(needsKey) {
    this._needsKey = needsKey;
    this._text = document.getElementById('photo-text');
    this._note = document.getElementById('photo-note');
    this._copyButton = document.getElementById('photo-copy');
    this._photo = null;
    document.getElementById('photo-format').addEventListener('change', () => this._update());
    this._copyButton.addEventListener('click', () => this._copy());
  }

  /** @returns {'json' | 'curl' | 'python'} */
  get format() {
    return document.querySelector('[name=photo-format]:checked').value;
  }

  /** The text that is shown and copied. */
  get text() {
    return this._text.textContent;
  }

  /** @param {import('./photo-collection.js').Photo | null} photo */
  show(photo) {
    this._photo = photo;
    this._update();
  }

  _update() {
    this._text.textContent = this._photo ? this._describe(this._photo) : '';
    this._note.hidden = !this._photo?.isPasted || this.format === 'json';
  }

  _describe({ file, name, url, outcome }) {
    if (this.format === 'json') return outcome?.answer ? formatJson(outcome.answer) : (outcome?.error ?? '');
    const request = { url, fileName: name, mediaType: file.type, needsKey: this._needsKey() };
    return this.format === 'curl' ? curlCommand(request) : pythonProgram(request);
  }

  async _copy() {
    const isCopied = await copyText(this._text);
    this._copyButton.textContent = isCopied ? 'Copied' : 'Press Ctrl+C';
    setTimeout(() => (this._copyButton.textContent = 'Copy'), CONFIRMATION_MS);
  }
}

/** Format JSON with each list of numbers, such as a box, in one line. Strings contain no line breaks. */
function formatJson(value) {
  const listOfNumbers = /\[\n\s+([-+.\deE]+(?:,\n\s+[-+.\deE]+)*)\n\s+\]/g;
  return JSON.stringify(value, null, 2).replace(listOfNumbers, (_, numbers) => `[${numbers.replace(/\n\s+/g, ' ')}]`);
}

/** Copy the text of an element. If the browser does not allow it, the text is selected. @returns {Promise<boolean>} */
async function copyText(element) {
  try {
    // Browsers offer the clipboard only in secure contexts.
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand('copy');
  }
}
