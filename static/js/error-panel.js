// Shows an error over the stage, with buttons for the actions that may help.

const BUTTON_TEXTS = {
  retry: 'Try again',
  file: 'Choose a video file',
  sample: 'Play the sample',
  key: 'Enter API key',
  reconnect: 'Reconnect',
};

export class ErrorPanel {
  /**
   * @param {(action: string) => void} onAction
   * @param {(action: string) => boolean} isAvailable whether to offer an action; not every server has the sample
   */
  constructor(onAction, isAvailable) {
    this._root = document.getElementById('error');
    this._title = this._root.querySelector('.error-title');
    this._text = this._root.querySelector('.error-text');
    this._actions = this._root.querySelector('.error-actions');
    this._onAction = onAction;
    this._isAvailable = isAvailable;
    /** Kind of the error that is shown; null: none. */
    this.kind = null;
  }

  /** @param {import('./error-messages.js').ErrorMessage} message */
  show({ kind, title, text, actions }) {
    this.kind = kind;
    this._root.dataset.kind = kind;
    this._title.textContent = title;
    this._text.textContent = text;
    this._actions.replaceChildren(...actions.filter(this._isAvailable).map((action) => this._createButton(action)));
    this._actions.firstElementChild?.classList.add('primary');
    this._root.hidden = false;
  }

  hide() {
    this.kind = null;
    this._root.hidden = true;
    delete this._root.dataset.kind;
  }

  _createButton(action) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'button';
    button.dataset.action = action;
    button.textContent = BUTTON_TEXTS[action];
    button.addEventListener('click', () => this._onAction(action));
    return button;
  }
}
