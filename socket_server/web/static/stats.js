// The live figures: GET /stats every two seconds while the tab is visible, never while it is hidden.

import { byId, here } from "./dom.js";
import { language, onLanguageChange, t } from "./language.js";

const INTERVAL_MS = 2000;

let latest = null;
let timer = 0;
let underWay = null;

export function startStats() {
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : refreshStats()));
  onLanguageChange(show);
  if (!document.hidden) refreshStats();
}

/** Ask now instead of at the next tick, e.g. because a connection came or went. */
export async function refreshStats() {
  stop();
  if (document.hidden) return;
  const asked = new AbortController();
  underWay = asked;
  try {
    const response = await fetch(here("stats"), { cache: "no-store", signal: asked.signal });
    latest = response.ok ? await response.json() : null;
  } catch {
    if (asked.signal.aborted) return;
    latest = null;
  }
  if (underWay !== asked) return;
  underWay = null;
  show();
  if (!document.hidden) timer = setTimeout(refreshStats, INTERVAL_MS);
}

function stop() {
  clearTimeout(timer);
  underWay?.abort();
  underWay = null;
}

function show() {
  const number = (value) =>
    typeof value === "number" ? value.toLocaleString(language(), { maximumFractionDigits: 2 }) : "–";
  byId("stats-users").textContent = number(latest?.connectedUsers);
  byId("stats-connections").textContent = number(latest?.totalConnections);
  byId("stats-average").textContent = number(latest?.averageConnectionsPerUser);
  byId("stats").dataset.live = String(latest !== null);
  const nodes = Array.isArray(latest?.nodes) ? latest.nodes.length : 0;
  byId("stats-nodes").hidden = nodes === 0;
  byId("stats-nodes").textContent = nodes ? t("nodes", nodes) : "";
}
