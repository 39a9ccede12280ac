// Sends a message at an interval. Browsers slow down the timers of a hidden page, but not those of its workers.

self.onmessage = ({ data: intervalMs }) => setInterval(() => self.postMessage(null), intervalMs);
