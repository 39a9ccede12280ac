// Shows one problem on the stage with the buttons that help; the texts are in problems.js.

const BUTTON_TEXTS = {
  retry: 'Try again',
  file: 'Choose a video file',
  sample: 'Play the sample',
  key: 'Enter a key',
  reconnect: 'Reconnect',
};

export class Notice {
  /**
   * @param {HTMLElement} root
   * @param {(action: string) => void} onAction
   * @param {(action: string) => boolean} isPossible some actions depend on the server (the sample)
   */
  constructor(root, onAction, isPossible) {
    this._root = root;
    this._title = root.querySelector('.notice-title');
    this._text = root.querySelector('.notice-text');
    this._actions = root.querySelector('.notice-actions');
    this._onAction = onAction;
    this._isPossible = isPossible;
    /** Kind of the problem on show, or null. */
    this.kind = null;
  }

  /** @param {import('./problems.js').Problem} problem */
  show(problem) {
    this.kind = problem.kind;
    this._root.dataset.kind = problem.kind;
    this._title.textContent = problem.title;
    this._text.textContent = problem.text;
    this._actions.replaceChildren(...problem.actions.filter(this._isPossible).map((action) => this._button(action)));
    this._actions.firstElementChild?.classList.add('primary');
    this._root.hidden = false;
  }

  hide() {
    this.kind = null;
    this._root.hidden = true;
    delete this._root.dataset.kind;
  }

  _button(action) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'button';
    button.dataset.action = action;
    button.textContent = BUTTON_TEXTS[action];
    button.addEventListener('click', () => this._onAction(action));
    return button;
  }
}
