// The page's own language: every word the page says, in English and Hebrew, and the direction that goes with it.
//
// index.html marks its texts: data-text (content), data-label (aria-label), data-hint (title), data-placeholder.

const STORED_AS = "socket-server.language";

const toHebrewUsers = (n) => (n === 1 ? "למשתמש אחד" : `ל־${n} משתמשים`);
const onHebrewConnections = (n) => (n === 1 ? "בחיבור אחד" : `ב־${n} חיבורים`);
const count = (n, one, many) => (n === 1 ? `1 ${one}` : `${n} ${many}`);

const TEXTS = {
  en: {
    pageTitle: "socket-server · live demo",
    skip: "Skip to the connections",
    headline: "Send a notification. Watch it arrive.",
    lead: "Open a few connections, as one user or as many, and send to all of them at once.",
    languageChoice: "Language of the page",
    development: "development",
    production: "production",

    statsLabel: "Live figures",
    statsUsers: "users online",
    statsConnections: "connections",
    statsAverage: "per user",
    nodes: (n) => `on ${count(n, "node", "nodes")}`,

    signInHeading: "Sign in",
    userId: "User id",
    userIdPlaceholder: "123",
    userIdHint: "Use the same id again for another connection of that user.",
    transport: "Transport",
    transportAuto: "Automatic",
    transportWebsocket: "WebSocket only",
    transportPolling: "Polling only",
    signIn: "Sign in",
    signInAgain: "Add another connection",
    tokenOwn: "Use a token of my own",
    token: "Token (JWT)",
    tokenPlaceholder: "eyJhbGciOi…",
    tokenHint: "Signed by your application. It stays in this page’s memory only.",
    needUser: "Give a user id.",
    needToken: "Paste a token: this server does not hand out any.",
    mintFailed: (why) => `The server gave no token: ${why}`,

    connectionsHeading: "Connections",
    emptyHeading: "No connections yet",
    emptyOne: "Sign in as a user. The connection shows up here.",
    emptyTwo: "Sign in again, as someone else or as the same user on “another device”.",
    emptyThree: "Send a notification and see it land on all of them.",
    connectionOf: (user) => `Connection of user ${user}`,
    sibling: (n, all) => `Connection ${n} of ${all}`,
    onlyConnection: "One connection",
    stateConnecting: "Connecting",
    stateConnected: "Connected, not signed in yet",
    stateAuthenticated: "Authenticated",
    stateRecovered: "Recovered",
    stateReconnecting: "Reconnecting",
    stateDisconnected: "Disconnected",
    sid: "sid",
    pingLabel: "Ping",
    pingLost: "no answer",
    ping: "Ping",
    pingHint: "Measure the round trip to the server",
    drop: "Drop link",
    dropHint: "Cut the transport without a goodbye, as a tunnel or a lift would. The client reconnects and catches up by itself.",
    disconnect: "Disconnect",
    reconnect: "Reconnect",
    remove: "Remove",
    removeThis: (user) => `Remove this connection of user ${user}`,
    received: "Received",
    notificationsOf: (user) => `Notifications received by user ${user}`,
    waiting: "Nothing has arrived yet.",
    caughtUp: (n) => `Back again: ${count(n, "missed notification was", "missed notifications were")} delivered.`,
    nothingMissed: "Back again: nothing was missed.",
    gap: "Some of what was missed is no longer kept. A real client would reload its data now.",
    connectFailed: (why) => `Cannot connect: ${why}`,
    lost: (why) => `Connection lost: ${why}`,
    kicked: "The server closed this connection.",
    arrived: (user, title) => `Notification for ${user}: ${title}`,

    untitled: "Notification without a title",
    details: "Details",
    priorityHigh: "High priority",
    priorityLow: "Low priority",
    replayed: "Caught up",
    replayedHint: "Sent while this connection was away; delivered when it came back",
    latencyHint: "From pressing Send on this page to arriving here",
    offsetHint: "Offset: the place of this notification in the order of delivery",

    composerHeading: "Send a notification",
    examples: "Examples",
    exampleTask: "Task",
    exampleAlert: "Security",
    exampleReport: "Report",
    users: "To users",
    usersHint: "Ids, separated by commas",
    everyone: "Everyone here",
    hebrew: "Hebrew",
    english: "English",
    titleHe: "Title in Hebrew",
    bodyHe: "Text in Hebrew",
    titleEn: "Title in English",
    bodyEn: "Text in English",
    priority: "Priority",
    low: "Low",
    normal: "Normal",
    high: "High",
    more: "Icon, link and action",
    iconUrl: "Icon address",
    linkUrl: "Link",
    actionKey: "Action key",
    apiKey: "API key",
    apiKeyHint: "Sent as a bearer token; kept in this page’s memory only.",
    send: "Send",
    request: "The same request from a back end",
    copy: "Copy",
    copied: "Copied",
    sentTo: (users, connections) =>
      `Delivered to ${count(users, "user", "users")} on ${count(connections, "connection", "connections")}.`,
    sentToNobody: "Accepted. None of these users is online right now; it is kept for clients that come back.",
    roundTrip: "round trip",
    sendFailed: (status) => `Not sent: the server answered ${status}.`,
    sendUnreachable: "The server could not be reached.",
    needApiKey: "This server wants an API key: fill it in above.",

    clientMissing: (src) =>
      `The Socket.IO client did not load from ${src}. Check that the address is reachable and not blocked, then reload the page.`,
    configMissing: "The server did not answer with the settings of this page. Check that it is running, then reload.",
  },

  he: {
    pageTitle: "socket-server · הדגמה חיה",
    skip: "דילוג אל החיבורים",
    headline: "שולחים התראה. רואים אותה מגיעה.",
    lead: "פותחים כמה חיבורים, של משתמש אחד או של כמה, ושולחים לכולם בבת אחת.",
    languageChoice: "שפת הדף",
    development: "פיתוח",
    production: "ייצור",

    statsLabel: "נתונים חיים",
    statsUsers: "משתמשים מחוברים",
    statsConnections: "חיבורים",
    statsAverage: "בממוצע למשתמש",
    nodes: (n) => (n === 1 ? "על שרת אחד" : `על ${n} שרתים`),

    signInHeading: "כניסה",
    userId: "מזהה משתמש",
    userIdPlaceholder: "123",
    userIdHint: "אותו מזהה פעם נוספת פותח חיבור נוסף של אותו משתמש.",
    transport: "תעבורה",
    transportAuto: "אוטומטי",
    transportWebsocket: "WebSocket בלבד",
    transportPolling: "Polling בלבד",
    signIn: "כניסה",
    signInAgain: "הוספת חיבור נוסף",
    tokenOwn: "שימוש באסימון משלי",
    token: "אסימון (JWT)",
    tokenPlaceholder: "eyJhbGciOi…",
    tokenHint: "אסימון שהיישום שלך חתם עליו. הוא נשמר רק בזיכרון של הדף הזה.",
    needUser: "יש למלא מזהה משתמש.",
    needToken: "יש להדביק אסימון: השרת הזה אינו מנפיק אסימונים.",
    mintFailed: (why) => `השרת לא הנפיק אסימון: ${why}`,

    connectionsHeading: "חיבורים",
    emptyHeading: "אין עדיין חיבורים",
    emptyOne: "נכנסים בתור משתמש, והחיבור מופיע כאן.",
    emptyTwo: "נכנסים שוב, בתור מישהו אחר או בתור אותו משתמש ב״מכשיר נוסף״.",
    emptyThree: "שולחים התראה ורואים אותה מגיעה לכולם.",
    connectionOf: (user) => `חיבור של משתמש ${user}`,
    sibling: (n, all) => `חיבור ${n} מתוך ${all}`,
    onlyConnection: "חיבור אחד",
    stateConnecting: "מתחבר",
    stateConnected: "מחובר, טרם אומת",
    stateAuthenticated: "מאומת",
    stateRecovered: "שוחזר",
    stateReconnecting: "מתחבר מחדש",
    stateDisconnected: "מנותק",
    sid: "sid",
    pingLabel: "פינג",
    pingLost: "אין תשובה",
    ping: "פינג",
    pingHint: "מדידת הזמן לשרת ובחזרה",
    drop: "הפלת הקו",
    dropHint: "ניתוק פתאומי בלי פרידה, כמו במנהרה או במעלית. הלקוח מתחבר מחדש ומשלים את החסר בעצמו.",
    disconnect: "ניתוק",
    reconnect: "חיבור מחדש",
    remove: "הסרה",
    removeThis: (user) => `הסרת החיבור הזה של משתמש ${user}`,
    received: "התקבלו",
    notificationsOf: (user) => `ההתראות שקיבל משתמש ${user}`,
    waiting: "עדיין לא הגיע דבר.",
    caughtUp: (n) => (n === 1 ? "החיבור חזר: נמסרה התראה אחת שהוחמצה." : `החיבור חזר: נמסרו ${n} התראות שהוחמצו.`),
    nothingMissed: "החיבור חזר: דבר לא הוחמץ.",
    gap: "חלק ממה שהוחמץ כבר אינו שמור. לקוח אמיתי היה טוען עכשיו את הנתונים מחדש.",
    connectFailed: (why) => `אי אפשר להתחבר: ${why}`,
    lost: (why) => `החיבור נפל: ${why}`,
    kicked: "השרת סגר את החיבור הזה.",
    arrived: (user, title) => `התראה למשתמש ${user}: ${title}`,

    untitled: "התראה ללא כותרת",
    details: "פרטים",
    priorityHigh: "עדיפות גבוהה",
    priorityLow: "עדיפות נמוכה",
    replayed: "נמסרה בדיעבד",
    replayedHint: "נשלחה כשהחיבור היה מנותק ונמסרה כשחזר",
    latencyHint: "מהלחיצה על ״שליחה״ בדף הזה ועד ההגעה לכאן",
    offsetHint: "היסט: מקומה של ההתראה בסדר המסירה",

    composerHeading: "שליחת התראה",
    examples: "דוגמאות",
    exampleTask: "משימה",
    exampleAlert: "אבטחה",
    exampleReport: "דוח",
    users: "נמענים",
    usersHint: "מזהי משתמשים מופרדים בפסיקים",
    everyone: "כל מי שכאן",
    hebrew: "עברית",
    english: "אנגלית",
    titleHe: "כותרת בעברית",
    bodyHe: "תוכן בעברית",
    titleEn: "כותרת באנגלית",
    bodyEn: "תוכן באנגלית",
    priority: "עדיפות",
    low: "נמוכה",
    normal: "רגילה",
    high: "גבוהה",
    more: "סמל, קישור ופעולה",
    iconUrl: "כתובת הסמל",
    linkUrl: "קישור",
    actionKey: "מפתח פעולה",
    apiKey: "מפתח API",
    apiKeyHint: "נשלח בכותרת Authorization ונשמר רק בזיכרון של הדף הזה.",
    send: "שליחה",
    request: "אותה בקשה מצד השרת",
    copy: "העתקה",
    copied: "הועתק",
    sentTo: (users, connections) => `נמסרה ${toHebrewUsers(users)} ${onHebrewConnections(connections)}.`,
    sentToNobody: "התקבלה. אף אחד מהמשתמשים אינו מחובר כרגע; היא נשמרת ללקוחות שיחזרו.",
    roundTrip: "הלוך ושוב",
    sendFailed: (status) => `לא נשלחה: השרת השיב ${status}.`,
    sendUnreachable: "השרת אינו זמין.",
    needApiKey: "השרת הזה דורש מפתח API: יש למלא אותו למעלה.",

    clientMissing: (src) => `לקוח Socket.IO לא נטען מהכתובת ${src}. כדאי לבדוק שהכתובת זמינה ואינה חסומה, ואז לטעון את הדף מחדש.`,
    configMissing: "השרת לא החזיר את הגדרות הדף. כדאי לבדוק שהוא פועל, ואז לטעון את הדף מחדש.",
  },
};

const listeners = new Set();
let current = "en";

/** "en" or "he". */
export const language = () => current;

/** The page's text for `key` in its language; arguments go to the texts that take some. */
export function t(key, ...values) {
  const text = TEXTS[current][key];
  if (text === undefined) throw new Error(`no text named "${key}"`);
  return typeof text === "function" ? text(...values) : text;
}

/** Call `listener` after every change of language. Returns a function that stops it. */
export function onLanguageChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The language to start with: the visitor's earlier choice, else the browser's. */
export function firstLanguage() {
  const stored = remembered();
  if (stored in TEXTS) return stored;
  return /^(he|iw)\b/i.test(navigator.language || "") ? "he" : "en";
}

export function setLanguage(wanted, { remember = false } = {}) {
  current = wanted in TEXTS ? wanted : "en";
  if (remember) keep(current);
  document.documentElement.lang = current;
  document.documentElement.dir = current === "he" ? "rtl" : "ltr";
  document.title = t("pageTitle");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of document.querySelectorAll("[data-hint]")) node.title = t(node.dataset.hint);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  for (const listener of listeners) listener();
}

function remembered() {
  try {
    return localStorage.getItem(STORED_AS) ?? "";
  } catch {
    return ""; // storage is switched off: fine, the browser's language it is
  }
}

function keep(value) {
  try {
    localStorage.setItem(STORED_AS, value);
  } catch {
    // the choice then holds until the page is closed
  }
}
