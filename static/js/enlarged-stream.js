// Enlarges one of several streams over the width of the grid, and puts it back.

export class EnlargedStream {
  /** @param {HTMLElement} grid its children are the streams; each has a button with the class `enlarge` */
  constructor(grid) {
    this._grid = grid;
    /** The enlarged child of the grid; null: none. */
    this._stream = null;
    grid.addEventListener('click', ({ target }) => {
      if (target.closest('.enlarge')) this._toggle(this._streamOf(target));
    });
    grid.addEventListener('dblclick', ({ target }) => {
      if (this._hasSeveral && target.closest('.tile-stage, .stage[data-phase=running]')) this._toggle(this._streamOf(target));
    });
  }

  /** Follow the number of streams: a single one fills the grid anyway. */
  update() {
    const [player] = this._grid.children;
    player.querySelector('.enlarge').hidden = !this._hasSeveral;
    if (!this._hasSeveral || !this._grid.contains(this._stream)) this._set(null);
  }

  /** Put a stream back if it is the enlarged one, because it has ended. @param {Element} stream */
  release(stream) {
    if (stream === this._stream) this._set(null);
  }

  get _hasSeveral() {
    return this._grid.children.length > 1;
  }

  _streamOf(element) {
    return [...this._grid.children].find((stream) => stream.contains(element));
  }

  _toggle(stream) {
    this._set(stream === this._stream ? null : stream);
    stream.scrollIntoView({ block: 'nearest' });
  }

  _set(stream) {
    if (this._stream) mark(this._stream, false);
    if (stream) mark(stream, true);
    this._stream = stream;
    this._grid.toggleAttribute('data-enlarged', stream !== null);
  }
}

function mark(stream, isEnlarged) {
  stream.classList.toggle('enlarged', isEnlarged);
  const button = stream.querySelector('.enlarge');
  button.setAttribute('aria-pressed', String(isEnlarged));
  button.title = isEnlarged ? 'Back to the grid (Esc)' : 'Enlarge';
}
