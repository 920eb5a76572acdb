// A page of another origin connects over each transport, with the cookies that the browser has for the server.

import { run, task } from "./browser.mjs";

await run(async (newContext) => {
  const context = await newContext();
  const cookie = (name, value) => ({ name, value, url: task.server, httpOnly: true, sameSite: "Lax" });
  await context.addCookies([cookie("jwt", task.token), cookie("id", "123")]);
  const seen = {};
  for (const origin of task.origins) {
    const page = await context.newPage();
    await page.goto(origin);
    seen[origin] = await page.evaluate(async (server) => {
      const outcome = (transports) =>
        new Promise((resolve) => {
          const socket = window.io(server, { forceNew: true, withCredentials: true, reconnection: false, transports });
          for (const event of ["auth_success", "auth_error", "connect_error"]) {
            socket.on(event, (what) => {
              socket.disconnect();
              resolve({ event, userId: what?.userId ?? null });
            });
          }
        });
      return Promise.all([["polling", "websocket"], ["websocket"], ["polling"]].map(outcome));
    }, task.server);
    await page.close();
  }
  return { seen };
});
