// Applies the colour theme: that of the system, or the one that the user has chosen.

export const THEMES = ['system', 'light', 'dark'];

/** When the stylesheet with the light colours applies, by theme. */
const LIGHT_MEDIA = { system: '(prefers-color-scheme: light)', light: 'all', dark: 'not all' };

/** @param {string} theme one of THEMES @returns {string} the theme that the button selects next */
export function nextTheme(theme) {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
}

export class Theme {
  /** @param {() => void} onPress the user wants the next theme */
  constructor(onPress) {
    this._button = document.getElementById('theme-button');
    this._link = document.getElementById('theme-light');
    this._colour = document.getElementById('theme-colour');
    this._button.addEventListener('click', onPress);
    window.matchMedia(LIGHT_MEDIA.system).addEventListener('change', () => this._showBrowserColour());
  }

  /** @param {string} theme one of THEMES */
  show(theme) {
    if (this._link.media !== LIGHT_MEDIA[theme]) this._link.media = LIGHT_MEDIA[theme];
    const label = `Theme: ${theme}. Switch to ${nextTheme(theme)}`;
    this._button.setAttribute('aria-label', label);
    this._button.title = label;
    this._showBrowserColour();
  }

  /** Phones colour the browser's own bar like the page. */
  _showBrowserColour() {
    this._colour.content = getComputedStyle(document.documentElement).getPropertyValue('--background').trim();
  }
}
