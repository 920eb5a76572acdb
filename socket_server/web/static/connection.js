// One card: one Socket.IO connection of one user, what it receives, and the buttons that disturb it.

import { duration, element, here, icon } from "./dom.js";
import { renderNotification, titleOf } from "./notification.js";
import { onLanguageChange, t } from "./language.js";

const KEPT_NOTIFICATIONS = 50;
const PING_TIMEOUT_MS = 5000;
const TONES = 6; // colours of the round user badges, in demo.css

export class Connection {
  /**
   * io: the official client's entry point.
   * userId: may be empty where the token alone says who it is.
   * transports: those that it may take, in the order in which it tries them.
   * credentials: {token, expiresAt or null}; renew: async () => credentials, or null where only the visitor has tokens.
   * latencyOf(payload): milliseconds since this page sent it, or null.
   * announce(text): says it to screen readers. onChange(): counts may have changed. onRemove(connection).
   */
  constructor({ io, userId, credentials, renew, transports, latencyOf, announce, onChange, onRemove }) {
    Object.assign(this, { userId, credentials, renew, latencyOf, announce, onChange, onRemove });
    this.state = "connecting";
    this.entries = [];
    this.receivedTotal = 0;
    this.problem = null; // () => text, so that it follows the language
    this.news = null;
    this.pingResult = null;
    this.wasAuthenticated = false;
    this.replayLeft = 0;
    this.position = { index: 1, all: 1 };

    this.build();
    this.socket = io({
      path: here("socket.io").pathname,
      multiplex: false, // a connection of its own for every card
      transports,
      auth: (give) => give(this.userId ? { token: this.credentials.token, userId: this.userId } : { token: this.credentials.token }),
    });
    this.listen();
    this.stopLanguage = onLanguageChange(() => this.render({ all: true }));
    this.render();
  }

  /** Which of this user's connections on the page this is; both count from 1. */
  place(index, all) {
    this.position = { index, all };
    this.render();
  }

  // ---- events of the connection ----

  listen() {
    const { socket } = this;
    socket.on("connect", () => {
      socket.io.engine.on("upgrade", () => this.render());
      this.update({ state: "connected" });
    });
    socket.on("auth_success", (answer) => this.authenticated(answer ?? {}));
    socket.on("auth_error", (error) => {
      const { message = "?", code = "?" } = error ?? {};
      this.expired = code === "expired_token";
      this.update({ problem: { message: () => String(message), code: String(code) } });
    });
    socket.on("notification", (payload, offset) => this.received(payload, offset));
    socket.on("disconnect", (reason) => {
      const kicked = reason === "io server disconnect";
      const wanted = reason === "io client disconnect";
      const lost = { message: () => (kicked ? t("kicked") : t("lost", reason)), code: null };
      this.update({ state: this.stateWithout(), news: null, problem: wanted ? null : (this.problem ?? lost) });
    });
    socket.on("connect_error", (error) => {
      const why = String(error?.message ?? error);
      this.update({ state: this.stateWithout(), problem: { message: () => t("connectFailed", why), code: null } });
    });
  }

  stateWithout() {
    return this.socket.active ? "reconnecting" : "disconnected";
  }

  authenticated({ userId, expiresAt = null, recovered, replayed }) {
    const missed = Number.isInteger(replayed) ? replayed : 0;
    const cameBack = this.wasAuthenticated && recovered === true;
    let news = null;
    if (cameBack) news = () => (missed ? t("caughtUp", missed) : t("nothingMissed"));
    if (this.wasAuthenticated && recovered === false) news = () => t("gap");
    if (userId != null) this.userId = String(userId);
    this.credentials = { ...this.credentials, expiresAt };
    this.replayLeft = missed;
    this.wasAuthenticated = true;
    this.update({ state: cameBack ? "recovered" : "authenticated", problem: null, news, gap: recovered === false });
  }

  received(payload, offset) {
    const replayed = this.replayLeft > 0;
    if (replayed) this.replayLeft -= 1;
    const entry = {
      payload,
      offset: typeof offset === "string" ? offset.slice(0, 40) : null,
      at: new Date(),
      latencyMs: this.latencyOf(payload),
      replayed,
    };
    this.receivedTotal += 1;
    this.entries.unshift(entry);
    this.entries.length = Math.min(this.entries.length, KEPT_NOTIFICATIONS);

    const item = renderNotification(entry);
    item.classList.add("is-new");
    this.list.prepend(item);
    while (this.list.childElementCount > KEPT_NOTIFICATIONS) this.list.lastElementChild.remove();
    this.render();
    this.announce(t("arrived", this.userId, titleOf(payload)));
  }

  // ---- the buttons ----

  ping() {
    const start = performance.now();
    this.socket.timeout(PING_TIMEOUT_MS).emit("ping", (error) => {
      const ms = performance.now() - start;
      this.pingResult = error ? () => t("pingLost") : () => duration(ms);
      this.render();
      this.announce(`${t("pingLabel")}: ${this.pingResult()}`);
    });
  }

  /** Lose the transport as a real network does: the client comes back by itself and catches up. */
  drop() {
    this.socket.io.engine?.close();
  }

  async toggle() {
    if (this.socket.active) {
      this.socket.disconnect();
      this.update({ state: "disconnected", problem: null, news: null });
      return;
    }
    this.update({ state: "connecting", problem: null, news: null });
    try {
      if (this.renew && this.needsToken()) this.credentials = await this.renew();
    } catch (error) {
      this.update({ state: "disconnected", problem: { message: () => t("mintFailed", error.message), code: null } });
      return;
    }
    this.expired = false;
    this.socket.connect();
  }

  needsToken() {
    const { expiresAt } = this.credentials;
    return this.expired || (typeof expiresAt === "number" && expiresAt < Date.now() / 1000 + 5);
  }

  remove() {
    this.stopLanguage();
    this.socket.removeAllListeners();
    this.socket.disconnect();
    this.node.remove();
    this.onRemove(this);
  }

  // ---- the card ----

  build() {
    const button = (name, testid, sign, act) => {
      const node = element("button", { type: "button", class: "button small", "data-testid": testid }, icon(sign), element("span"));
      node.addEventListener("click", act);
      this[name] = node;
      return node;
    };

    this.badge = element("span", { class: "badge", "aria-hidden": "true" });
    this.userNode = element("h3", { class: "card-user", "data-testid": "connection-user", dir: "auto" });
    this.siblingNode = element("p", { class: "card-sibling" });
    this.stateNode = element("span", { class: "state", "data-testid": "connection-state", role: "status" });
    this.removeButton = element("button", { type: "button", class: "icon-button", "data-testid": "connection-remove" }, icon("close"));
    this.removeButton.addEventListener("click", () => this.remove());

    const fact = (name, testid, label) => {
      this[name] = element("dd", { "data-testid": testid, dir: "ltr" });
      this[`${name}Label`] = element("dt", {}, label ?? "");
      return element("div", {}, this[`${name}Label`], this[name]);
    };
    const facts = element(
      "dl",
      { class: "card-facts" },
      fact("transportNode", "connection-transport"),
      fact("sidNode", "connection-sid"),
      fact("pingNode", "connection-ping"),
    );

    this.problemText = element("span", { dir: "auto" });
    this.problemCode = element("code", { "data-testid": "connection-error-code", dir: "ltr" });
    this.problemNode = element("p", { class: "note bad", role: "alert", "data-testid": "connection-error" }, icon("alert"), element("span", {}, this.problemText, " ", this.problemCode));
    this.newsText = element("span");
    this.newsNode = element("p", { class: "note", role: "status", "data-testid": "connection-news" }, icon("check"), this.newsText);

    const actions = element(
      "div",
      { class: "card-actions" },
      button("pingButton", "connection-ping-button", "pulse", () => this.ping()),
      button("dropButton", "connection-drop", "drop", () => this.drop()),
      button("toggleButton", "connection-toggle", "power", () => this.toggle()),
    );

    this.receivedLabel = element("span");
    this.receivedCount = element("span", { class: "count", "data-testid": "connection-received" });
    this.list = element("ol", { class: "notifications", "data-testid": "notifications", tabindex: "0" });
    this.emptyNode = element("p", { class: "waiting" });

    this.node = element(
      "article",
      { class: "card", "data-testid": "connection" },
      element(
        "header",
        { class: "card-head" },
        this.badge,
        element("div", { class: "card-who" }, this.userNode, this.siblingNode),
        this.stateNode,
        this.removeButton,
      ),
      facts,
      actions,
      this.problemNode,
      this.newsNode,
      element("div", { class: "card-list-head" }, this.receivedLabel, this.receivedCount),
      this.list,
      this.emptyNode,
    );
  }

  update(changes) {
    Object.assign(this, changes);
    this.render();
    this.onChange();
  }

  /** Write what is known into the card; `all` renders the notifications anew too (after a change of language). */
  render({ all = false } = {}) {
    const { state, socket, position } = this;
    const user = this.userId || "…";
    const up = socket?.connected ?? false;
    const stateKey = `state${state[0].toUpperCase()}${state.slice(1)}`;

    this.node.dataset.state = state;
    this.node.dataset.user = this.userId;
    this.node.setAttribute("aria-label", t("connectionOf", user));
    this.badge.textContent = initials(user).toUpperCase();
    this.badge.dataset.tone = toneOf(user);
    put(this.userNode, user);
    put(this.siblingNode, position.all > 1 ? t("sibling", position.index, position.all) : t("onlyConnection"));
    this.stateNode.dataset.state = state;
    put(this.stateNode, t(stateKey));
    this.removeButton.setAttribute("aria-label", t("removeThis", user));
    this.removeButton.title = t("remove");

    put(this.transportNodeLabel, t("transport"));
    put(this.transportNode, (up && socket.io.engine?.transport?.name) || "–");
    put(this.sidNodeLabel, t("sid"));
    put(this.sidNode, (up && socket.id) || "–");
    this.sidNode.title = (up && socket.id) || "";
    put(this.pingNodeLabel, t("pingLabel"));
    put(this.pingNode, up && this.pingResult ? this.pingResult() : "–");

    this.problemNode.hidden = !this.problem;
    if (this.problem) {
      put(this.problemText, this.problem.message());
      put(this.problemCode, this.problem.code ?? "");
      this.problemCode.hidden = !this.problem.code;
    }
    this.newsNode.hidden = !this.news;
    this.newsNode.classList.toggle("warn", Boolean(this.gap));
    if (this.news) put(this.newsText, this.news());

    caption(this.pingButton, t("ping"), t("pingHint"));
    caption(this.dropButton, t("drop"), t("dropHint"));
    caption(this.toggleButton, socket?.active === false ? t("reconnect") : t("disconnect"));
    this.pingButton.disabled = !up;
    this.dropButton.disabled = !up;

    put(this.receivedLabel, t("received"));
    put(this.receivedCount, String(this.receivedTotal));
    this.list.setAttribute("aria-label", t("notificationsOf", user));
    this.list.hidden = this.entries.length === 0;
    this.emptyNode.hidden = this.entries.length > 0;
    put(this.emptyNode, t("waiting"));
    if (all) this.list.replaceChildren(...this.entries.map(renderNotification));
  }
}

/** Set a text only where it differs, so that live regions speak only about changes. */
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function caption(button, text, hint) {
  put(button.lastElementChild, text);
  if (hint) button.title = hint;
}

/** What fits the round badge: all of a short id, else its first two characters. */
function initials(user) {
  const characters = [...user];
  return characters.slice(0, characters.length <= 3 ? 3 : 2).join("");
}

function toneOf(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return String(sum % TONES);
}
