// The card of one connection: its elements, and what they show.

import { element, icon, put } from "./dom.js";
import { t } from "./language.js";
import { renderNotification } from "./notification.js";

const TONES = 6; // colors of the badges, in connections.css

export class Card {
  /** actions: {ping, drop, toggle, remove}, called without arguments. */
  constructor(actions) {
    this.buildHead(actions);
    this.buildFacts();
    this.buildNotes();
    this.buildButtons(actions);
    this.buildList();
    this.node = element(
      "article",
      { class: "card", "data-testid": "connection" },
      this.head,
      this.facts,
      this.buttons,
      this.problem,
      this.news,
      this.listHead,
      this.list,
      this.cut,
      this.empty,
    );
  }

  buildHead({ remove }) {
    this.badge = element("span", { class: "badge", "aria-hidden": "true" });
    this.user = element("h3", { class: "card-user", "data-testid": "connection-user", dir: "auto" });
    this.sibling = element("p", { class: "card-sibling" });
    this.state = element("span", { class: "state", "data-testid": "connection-state", role: "status" });
    this.removeButton = element("button", { type: "button", class: "icon-button", "data-testid": "connection-remove" }, icon("close"));
    this.removeButton.addEventListener("click", remove);
    const names = element("div", { class: "card-who" }, this.user, this.sibling);
    this.head = element("header", { class: "card-head" }, this.badge, names, this.state, this.removeButton);
  }

  buildFacts() {
    const fact = (name) => {
      const label = element("dt");
      const value = element("dd", { "data-testid": `connection-${name}`, dir: "ltr" });
      return { label, value, node: element("div", {}, label, value) };
    };
    this.transport = fact("transport");
    this.sid = fact("sid");
    this.ping = fact("ping");
    this.facts = element("dl", { class: "card-facts" }, this.transport.node, this.sid.node, this.ping.node);
  }

  buildNotes() {
    this.problemText = element("span", { dir: "auto" });
    this.problemCode = element("code", { "data-testid": "connection-error-code", dir: "ltr" });
    const problem = element("span", {}, this.problemText, " ", this.problemCode);
    this.problem = element("p", { class: "note bad", role: "alert", "data-testid": "connection-error" }, icon("alert"), problem);
    this.newsText = element("span");
    this.news = element("p", { class: "note", role: "status", "data-testid": "connection-news" }, icon("check"), this.newsText);
  }

  buildButtons({ ping, drop, toggle }) {
    const button = (testid, sign, act) => {
      const node = element("button", { type: "button", class: "button small", "data-testid": testid }, icon(sign), element("span"));
      node.addEventListener("click", act);
      return node;
    };
    this.pingButton = button("connection-ping-button", "pulse", ping);
    this.dropButton = button("connection-drop", "drop", drop);
    this.toggleButton = button("connection-toggle", "power", toggle);
    this.buttons = element("div", { class: "card-actions" }, this.pingButton, this.dropButton, this.toggleButton);
  }

  buildList() {
    this.receivedLabel = element("span");
    this.receivedCount = element("span", { class: "count", "data-testid": "connection-received" });
    this.listHead = element("div", { class: "card-list-head" }, this.receivedLabel, this.receivedCount);
    this.list = element("ol", { class: "notifications", "data-testid": "notifications", tabindex: "0" });
    this.cut = element("p", { class: "hint", "data-testid": "notifications-cut" });
    this.empty = element("p", { class: "waiting" });
  }

  /** Add a notification at the top of the list, which keeps at most `most`. */
  prepend(entry, most) {
    const item = renderNotification(entry);
    item.classList.add("is-new");
    this.list.prepend(item);
    while (this.list.childElementCount > most) this.list.lastElementChild.remove();
  }

  /** Show the state of a connection. all: also its notifications, as after a change of language. */
  render(connection, { all = false } = {}) {
    this.renderHead(connection);
    this.renderFacts(connection);
    this.renderNotes(connection);
    this.renderButtons(connection);
    this.renderList(connection);
    if (all) this.list.replaceChildren(...connection.entries.map(renderNotification));
  }

  renderHead({ state, userId, position }) {
    const user = userId || "…";
    this.node.dataset.state = state;
    this.node.dataset.user = userId;
    this.node.setAttribute("aria-label", t("connectionOf", user));
    this.badge.textContent = initials(user).toUpperCase();
    this.badge.dataset.tone = toneOf(user);
    put(this.user, user);
    put(this.sibling, position.all > 1 ? t("sibling", position.index, position.all) : t("onlyConnection"));
    this.state.dataset.state = state;
    put(this.state, t(`state${state[0].toUpperCase()}${state.slice(1)}`));
    this.removeButton.setAttribute("aria-label", t("removeThis", user));
    this.removeButton.title = t("remove");
    this.list.setAttribute("aria-label", t("notificationsOf", user));
  }

  renderFacts({ transport, sid, connected, pingResult }) {
    put(this.transport.label, t("transport"));
    put(this.transport.value, transport ?? "–");
    put(this.sid.label, t("sid"));
    put(this.sid.value, sid ?? "–");
    this.sid.value.title = sid ?? "";
    put(this.ping.label, t("pingLabel"));
    put(this.ping.value, connected && pingResult ? pingResult() : "–");
  }

  renderNotes({ problem, news, gap }) {
    this.problem.hidden = !problem;
    if (problem) {
      put(this.problemText, problem.text());
      put(this.problemCode, problem.code ?? "");
      this.problemCode.hidden = !problem.code;
    }
    this.news.hidden = !news;
    this.news.classList.toggle("warn", gap);
    if (news) put(this.newsText, news());
  }

  renderButtons({ connected, active }) {
    caption(this.pingButton, t("ping"), t("pingHint"));
    caption(this.dropButton, t("drop"), t("dropHint"));
    caption(this.toggleButton, active ? t("disconnect") : t("reconnect"));
    this.pingButton.disabled = !connected;
    this.dropButton.disabled = !connected;
  }

  renderList({ entries, receivedTotal }) {
    put(this.receivedLabel, t("received"));
    put(this.receivedCount, String(receivedTotal));
    this.list.hidden = entries.length === 0;
    this.empty.hidden = entries.length > 0;
    put(this.empty, t("waiting"));
    this.cut.hidden = entries.length === receivedTotal;
    put(this.cut, this.cut.hidden ? "" : t("newestOnly", entries.length, receivedTotal));
  }
}

function caption(button, text, hint = "") {
  put(button.lastElementChild, text);
  button.title = hint;
}

/** Return the text of a badge: a short id as it is, else its first two characters. */
function initials(user) {
  const characters = [...user];
  return characters.slice(0, characters.length <= 3 ? 3 : 2).join("");
}

function toneOf(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return String(sum % TONES);
}
