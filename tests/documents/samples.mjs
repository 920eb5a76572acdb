// Runs the JavaScript samples of the documents in one process, each with its own values for the names that it leaves free.
// Arguments: the folder with the samples (NAME.mjs, or NAME.hook.mjs for a React hook) and its node_modules.
// Prints a line of JSON {"name", "text"} for each thing that a sample shows.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const FREE = ['getToken', 'show', 'sessionStorage', 'console', 'fetch', 'document', 'io'];

function stub(name, source) {
  mkdirSync(join(folder, 'node_modules', name), {recursive: true});
  writeFileSync(join(folder, 'node_modules', name, 'package.json'), '{"type": "module", "main": "index.js"}');
  writeFileSync(join(folder, 'node_modules', name, 'index.js'), source);
}

// The official client, which reconnects sooner here, so that the test is quick.
stub('socket.io-client', `
import { io as official } from ${JSON.stringify(process.env.CLIENT)};
export const io = (url, options) => official(url, {reconnectionDelay: 100, reconnectionDelayMax: 300, ...options});
`);

// As much of React as a hook needs that renders once.
stub('react', `
export const useEffect = (effect) => { effect(); };
export const useState = (initial) => {
  let state = initial;
  return [state, (change) => { state = change(state); globalThis.rendered(state); }];
};
`.replace('change(state)', "typeof change === 'function' ? change(state) : change"));

const { io } = await import(pathToFileURL(join(folder, 'node_modules/socket.io-client/index.js')));

function scope(name) {
  let tokens = 0;
  let requests = 0;
  const stored = new Map();
  const show = (...words) => {
    const text = words.map((word) => (typeof word === 'object' ? JSON.stringify(word) : String(word))).join(' ');
    process.stdout.write(`${JSON.stringify({name, text})}\n`);
  };
  return {
    show,
    io,
    console: {log: show, error: show},
    // The first request for a token fails.
    getToken: async () => {
      if (tokens++ === 0) throw new Error('the token endpoint fails');
      return process.env.TOKEN;
    },
    fetch: async (...request) => (requests++ === 0 ? new Response('', {status: 503}) : fetch(...request)),
    sessionStorage: {getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value)},
    document: {
      querySelector: () => ({append: ({textContent}) => show(textContent)}),
      createElement: () => ({}),
    },
  };
}

globalThis.scopes = {};
await Promise.all(readdirSync(folder).filter((file) => file.endsWith('.mjs')).map(async (file) => {
  const path = join(folder, file);
  const source = readFileSync(path, 'utf8');
  const declared = (word) => new RegExp(`\\b(function|const|let|import \\{[^}]*)\\s*\\b${word}\\b`).test(source);
  const names = FREE.filter((word) => !declared(word));
  globalThis.scopes[file] = scope(file.replace(/\.(hook\.)?mjs$/, ''));
  writeFileSync(path, `const {${names.join(', ')}} = globalThis.scopes[${JSON.stringify(file)}]; ${source}`);
  const module = await import(pathToFileURL(path));
  if (file.endsWith('.hook.mjs')) {
    globalThis.rendered = (notifications) => { if (notifications.length) globalThis.scopes[file].show(notifications.at(-1)); };
    Object.values(module)[0]();
  }
}));
