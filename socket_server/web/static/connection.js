// One Socket.IO connection of one user: its state, what it receives, and what its buttons do. Its looks are in card.js.

import { Card } from "./card.js";
import { duration, here } from "./dom.js";
import { connectErrorText, fetchErrorText, lostText } from "./failures.js";
import { authErrorText, onLanguageChange, t } from "./language.js";
import { titleOf } from "./notification.js";

const MAX_LISTED = 50; // notifications on a card; older ones are dropped
const PING_TIMEOUT_MS = 5000;
const RENEW_BEFORE_EXPIRY_S = 5;
const MAX_OFFSET_CHARS = 40;

export class Connection {
  /**
   * io: the entry point of the official client.
   * userId: "" if the token alone says it.
   * transports: those that the client may use, in the order in which it tries them.
   * credentials: {token, expiresAt or null}. renew: async () => credentials; null if only the visitor has tokens.
   * latencyOf(payload): milliseconds since this page sent it; null if another client did.
   * announce(text): tells screen readers. onChange(): the state or the user has changed. onRemove(connection).
   */
  constructor({ io, userId, credentials, renew, transports, latencyOf, announce, onChange, onRemove }) {
    Object.assign(this, { userId, credentials, renew, latencyOf, announce, onChange, onRemove });
    this.state = "connecting"; // connected, authenticated, recovered, reconnecting, disconnected
    this.entries = []; // the newest MAX_LISTED notifications, newest first
    this.receivedTotal = 0;
    this.problem = null; // {text: () => string, code: string or null}: a function, so that it follows the language
    this.news = null; // () => string
    this.gap = false; // some missed notifications are no longer kept
    this.pingResult = null; // () => string
    this.wasAuthenticated = false;
    this.replayLeft = 0;
    this.position = { index: 1, all: 1 };

    this.card = new Card({
      ping: () => this.ping(),
      drop: () => this.drop(),
      toggle: () => this.toggle(),
      remove: () => this.remove(),
    });
    this.socket = io({
      path: here("socket.io").pathname,
      multiplex: false, // each card has a transport of its own
      transports,
      auth: (send) => send(this.userId ? { token: this.credentials.token, userId: this.userId } : { token: this.credentials.token }),
    });
    this.listen();
    this.stopLanguage = onLanguageChange(() => this.card.render(this, { all: true }));
    this.card.render(this);
  }

  get node() {
    return this.card.node;
  }

  get connected() {
    return this.socket.connected;
  }

  /** Whether the connection is open or the client tries to open it. */
  get active() {
    return this.socket.active;
  }

  get transport() {
    return (this.connected && this.socket.io.engine?.transport?.name) || null;
  }

  get sid() {
    return (this.connected && this.socket.id) || null;
  }

  /** Set which of this user's connections on the page this is. Both count from 1. */
  place(index, all) {
    this.position = { index, all };
    this.card.render(this);
  }

  // ---- events ----

  listen() {
    const { socket } = this;
    socket.on("connect", () => {
      socket.io.engine.on("upgrade", () => this.card.render(this));
      this.update({ state: "connected" });
    });
    socket.on("auth_success", (answer) => this.authenticated(answer ?? {}));
    socket.on("auth_error", (error) => {
      const { message = "?", code = "?" } = error ?? {};
      this.expired = code === "expired_token";
      this.update({ problem: { text: () => authErrorText(String(code), String(message)), code: String(code) } });
    });
    socket.on("notification", (payload, offset) => this.received(payload, offset));
    socket.on("disconnect", (reason) => {
      const lost = { text: () => lostText(reason), code: null };
      const problem = reason === "io client disconnect" ? null : (this.problem ?? lost);
      this.update({ state: this.stateWithout(), news: null, problem });
    });
    socket.on("connect_error", (error) => {
      this.update({ state: this.stateWithout(), problem: { text: () => connectErrorText(error), code: null } });
    });
  }

  stateWithout() {
    return this.active ? "reconnecting" : "disconnected";
  }

  authenticated({ userId, expiresAt = null, recovered, replayed }) {
    const missed = Number.isInteger(replayed) ? replayed : 0;
    const returned = this.wasAuthenticated && recovered === true;
    const gap = this.wasAuthenticated && recovered === false;
    let news = null;
    if (returned) news = () => (missed ? t("caughtUp", missed) : t("nothingMissed"));
    if (gap) news = () => t("gap");
    if (userId != null) this.userId = String(userId);
    this.credentials = { ...this.credentials, expiresAt };
    this.replayLeft = missed;
    this.wasAuthenticated = true;
    this.update({ state: returned ? "recovered" : "authenticated", problem: null, news, gap });
  }

  received(payload, offset) {
    const replayed = this.replayLeft > 0;
    if (replayed) this.replayLeft -= 1;
    const entry = {
      payload,
      offset: typeof offset === "string" ? offset.slice(0, MAX_OFFSET_CHARS) : null,
      at: new Date(),
      latencyMs: this.latencyOf(payload),
      replayed,
    };
    this.receivedTotal += 1;
    this.entries.unshift(entry);
    this.entries.length = Math.min(this.entries.length, MAX_LISTED);
    this.card.prepend(entry, MAX_LISTED);
    this.card.render(this);
    this.announce(t("arrived", this.userId, titleOf(payload)));
  }

  // ---- buttons ----

  ping() {
    const start = performance.now();
    this.socket.timeout(PING_TIMEOUT_MS).emit("ping", (error) => {
      const ms = performance.now() - start;
      this.pingResult = error ? () => t("pingLost") : () => duration(ms);
      this.card.render(this);
      this.announce(`${t("pingLabel")}: ${this.pingResult()}`);
    });
  }

  /** Close the transport without a DISCONNECT packet, as a lost network does. */
  drop() {
    this.socket.io.engine?.close();
  }

  async toggle() {
    if (this.active) {
      this.socket.disconnect();
      this.update({ state: "disconnected", problem: null, news: null });
      return;
    }
    this.update({ state: "connecting", problem: null, news: null });
    try {
      if (this.renew && this.needsToken()) this.credentials = await this.renew();
    } catch (error) {
      this.update({ state: "disconnected", problem: { text: () => t("mintFailed", fetchErrorText(error)), code: null } });
      return;
    }
    this.expired = false;
    this.socket.connect();
  }

  needsToken() {
    const { expiresAt } = this.credentials;
    return this.expired || (typeof expiresAt === "number" && expiresAt < Date.now() / 1000 + RENEW_BEFORE_EXPIRY_S);
  }

  remove() {
    this.stopLanguage();
    this.socket.removeAllListeners();
    this.socket.disconnect();
    this.node.remove();
    this.onRemove(this);
  }

  update(changes) {
    Object.assign(this, changes);
    this.card.render(this);
    this.onChange();
  }
}
