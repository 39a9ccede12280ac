"""Holds the style sheet of the report."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #5c5c5c; --line: #dcdcdc; --page: #fff;
  --box: #f5f6f8; --ok: #2f9e5a; --drift: #d13438; --flagged: #e8a33d; --recurring: #8a63d2;
  --stale: #5b8def; --unknown: #9aa0a8; --none: #e6e8eb; --accent: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececec; --soft: #a8a8a8; --line: #3c4148; --page: #16181c; --box: #20242a;
    --ok: #3fb871; --drift: #f2686c; --unknown: #7b828c; --none: #2b3037; --accent: #60a5fa; } }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; }
header { padding: .75rem 1rem; border-radius: .5rem; border-left: .5rem solid var(--unknown);
  background: var(--box); }
header.drift { border-color: var(--drift); } header.none { border-color: var(--ok); }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .35rem 0; } .soft { color: var(--soft); font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.hint { padding: .5rem 1rem; margin: .5rem 0; background: var(--box);
  border-left: .25rem solid var(--flagged); }
.hint ul { margin: .25rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .35rem .6rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: middle; white-space: nowrap; font-weight: normal; }
thead th { color: var(--soft); font-size: .85rem; } tbody th { font-weight: 600; }
td.number, th.number { text-align: right; } td.what { white-space: normal; min-width: 14rem; }
td.verdict { font-weight: 600; } td.drift { color: var(--drift); } td.none { color: var(--ok); }
td.cannot_judge { color: var(--soft); }
th.time { width: 32%; min-width: 14rem; } th.time span + span { float: right; }
.strip { display: block; width: 100%; height: 1.1rem; border-radius: 3px; }
rect.drift { fill: var(--drift); } rect.flagged { fill: var(--flagged); }
rect.recurring { fill: var(--recurring); }
rect.ok { fill: var(--ok); } rect.stale { fill: var(--stale); } rect.unknown { fill: var(--unknown); }
rect.none { fill: var(--none); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .85rem; color: var(--soft); }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .35rem;
  vertical-align: -1px; background: var(--none); }
i.drift { background: var(--drift) !important; } i.flagged { background: var(--flagged) !important; }
i.recurring { background: var(--recurring) !important; } i.ok { background: var(--ok) !important; }
i.stale { background: var(--stale) !important; } i.unknown { background: var(--unknown) !important; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; max-width: 36rem; padding: .5rem .75rem; background: var(--box); border-radius: .5rem; }
figcaption { font-weight: 600; font-size: .9rem; } figure svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
svg .band { fill: var(--ok); opacity: .22; } svg .line { fill: none; stroke: var(--accent); stroke-width: 2; }
svg .episode { fill: var(--drift); opacity: .12; }
.bar { display: inline-block; height: .7rem; border-radius: 2px; background: var(--drift); }
b.severe { color: var(--drift); } b.moderate { color: var(--flagged); }
a { color: var(--accent); } code { font-size: .85rem; overflow-wrap: anywhere; }
"""
