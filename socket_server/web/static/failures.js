// What browsers and the Socket.IO client report, as texts in the language of the page.

import { t } from "./language.js";

const LOST = {
  "transport close": "lostClosed",
  "transport error": "lostError",
  "ping timeout": "lostPing",
  "parse error": "lostParse",
};

/** Return why a connection ended. reason: of the client's event `disconnect`. */
export function lostText(reason) {
  if (reason === "io server disconnect") return t("kicked");
  return t("lost", LOST[reason] ? t(LOST[reason]) : reason);
}

/** Return why a connection could not be opened. error: of the client's event `connect_error`. */
export function connectErrorText(error) {
  return t("connectFailed", whyNotConnected(error));
}

function whyNotConnected(error) {
  if (error?.type !== "TransportError") return error?.message === "timeout" ? t("whyTimeout") : String(error?.message ?? error);
  // Over polling the description is the HTTP status, 0 without an answer. A WebSocket does not tell the page a status.
  const status = typeof error.description === "number" ? error.description : 0;
  if (status === 403) return t("whyOrigin");
  if (status === 429) return t("whyTooMany");
  if (status === 503) return t("whyFull");
  return status ? t("whyStatus", status) : t("whyUnreachable");
}

/** Return why fetch() failed, or the server's own text if it answered. */
export function fetchErrorText(error) {
  return error instanceof TypeError ? t("whyUnreachable") : error.message;
}
