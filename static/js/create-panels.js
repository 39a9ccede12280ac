// Creates the parts of the page that show something or take input, and connects them with the app.

import { Announcer } from './announcer.js';
import { ClassPanel } from './class-panel.js';
import { ConnectionStatus } from './connection-status.js';
import { Controls } from './controls.js';
import { CountsPanel } from './counts-panel.js';
import { DriftPanel } from './drift-panel.js';
import { ErrorPanel } from './error-panel.js';
import { ResultsStatus } from './results-status.js';
import { SamplingPanel } from './sampling-panel.js';
import { Shortcuts } from './shortcuts.js';
import { StartView } from './start-view.js';
import { StatisticsPanel } from './statistics-panel.js';
import { nextTheme, Theme } from './theme.js';
import { WakeLock } from './wake-lock.js';

/** @param {object} app see app.js; receives each part as a field. Its other fields are read when they are needed, not now. */
export function createPanels(app) {
  app.statistics = new StatisticsPanel();
  app.announcer = new Announcer();
  app.counts = new CountsPanel();
  app.wakeLock = new WakeLock();
  app.theme = new Theme(() => app.changeSettings({ theme: nextTheme(app.settings.theme) }));
  app.shortcuts = new Shortcuts((shortcuts) => app.changeSettings({ shortcuts }));
  app.resultsStatus = new ResultsStatus({
    wantsSound: () => app.settings.sound,
    onChange: () => app.transport.isOpen && app.showOpenConnection(),
  });
  app.status = new ConnectionStatus(() => app.transport.retryNow());
  app.startView = new StartView(app.status, {
    isIdle: () => app.transport.state.name === 'idle',
    onModels: (models) => app.setModels(models),
  });
  app.errorPanel = new ErrorPanel(
    (action) => app.runAction(action),
    (action) => action !== 'sample' || app.startView.hasSample,
  );
  app.classPanel = new ClassPanel((labels) => {
    app.changeSettings({ classes: { ...app.settings.classes, [app.settings.version]: labels } });
  });
  app.samplingPanel = new SamplingPanel({
    report: () => app.transport.send({ type: 'report', stream: 0 }),
    setKeep: (keep) => app.changeSettings({ keep }),
  });
  app.driftPanel = new DriftPanel({ key: () => app.key, onKeyRequired: () => app.controls.focusKey() });
  app.controls = new Controls({
    play: (kind, options) => app.playback.play(kind, options),
    stop: () => app.playback.stop(),
    togglePause: () => app.playback.togglePause(),
    changeSettings: (changes) => app.changeSettings(changes),
    setMirrored: (mirrored) => {
      app.changeSettings({ mirrors: { ...app.settings.mirrors, [app.playback.sourceKey]: mirrored } });
    },
    switchCamera: () => app.playback.switchCamera(),
    saveSnapshot: () => app.stage.saveSnapshot(),
    setKey: (key) => app.setKey(key),
  });
}
