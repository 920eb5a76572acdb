// One user in two tabs: one sends, both receive.

import { byTestId, notifications, openPage, run, signIn, speakHebrew, task } from "./browser.mjs";

await run(async (newContext) => {
  const context = await newContext({ locale: "en-GB" });
  const sender = await openPage(context);
  const other = await openPage(context);
  await speakHebrew(other);
  await signIn(sender, "123");
  await signIn(other, "123");

  const send = async ({ he, en }) => {
    await sender.locator(byTestId("composer-users")).fill("123");
    await sender.locator(byTestId("composer-title-he")).fill(he);
    await sender.locator(byTestId("composer-title-en")).fill(en);
    await sender.locator(byTestId("send")).click();
  };
  await send(task.first);
  await notifications(sender, 1);
  await send(task.second);
  const onSender = await notifications(sender, 2);
  const onOther = await notifications(other, 2);

  const figures = {};
  for (const name of ["stats-users", "stats-connections"]) {
    const figure = sender.locator(byTestId(name));
    await figure.filter({ hasText: /^[1-9]/ }).waitFor();
    figures[name] = await figure.textContent();
  }
  return {
    onSender,
    onOther,
    figures,
    sendResult: await sender.locator(byTestId("send-result")).textContent(),
    sentFailed: await sender.locator(`${byTestId("send-result")} .bad`).count(),
  };
});
