// The live figures: GET /stats every two seconds while the tab is visible.

import { byId, here } from "./dom.js";
import { language, onLanguageChange, t } from "./language.js";

const INTERVAL_MS = 2000;

let latest = null;
let timer = 0;
let request = null;

export function startStats() {
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : refreshStats()));
  onLanguageChange(show);
  if (!document.hidden) refreshStats();
}

/** Get the figures now, for example because a connection has opened. */
export async function refreshStats() {
  stop();
  if (document.hidden) return;
  const own = new AbortController();
  request = own;
  try {
    const response = await fetch(here("stats"), { cache: "no-store", signal: own.signal });
    latest = response.ok ? await response.json() : null;
  } catch {
    if (own.signal.aborted) return;
    latest = null;
  }
  if (request !== own) return;
  request = null;
  show();
  if (!document.hidden) timer = setTimeout(refreshStats, INTERVAL_MS);
}

function stop() {
  clearTimeout(timer);
  request?.abort();
  request = null;
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
