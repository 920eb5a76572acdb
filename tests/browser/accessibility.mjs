// axe-core on the page: in both color schemes and languages, before sending, after it, and with errors.

import { readFileSync } from "node:fs";
import { byTestId, choose, notifications, openPage, require, run, signIn, speakHebrew, task } from "./browser.mjs";

const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");

await run(async (newContext) => {
  const violations = [];
  const contrasts = [];
  let runs = 0;
  for (const width of task.widths) {
    for (const colorScheme of ["light", "dark"]) {
      for (const language of ["en", "he"]) {
        const context = await newContext({
          locale: "en-GB",
          colorScheme,
          reducedMotion: "reduce",
          viewport: { width, height: 900 },
        });
        const page = await openPage(context);
        if (language === "he") await speakHebrew(page);
        await page.evaluate(AXE);
        const check = async (when) => {
          const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
          runs += 1;
          for (const { id, nodes } of found.violations) {
            const where = `${when}, ${width} px, ${colorScheme}, ${language}`;
            violations.push({ id, where, nodes: nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`) });
          }
        };
        await check("empty");
        await signIn(page, "123");
        await signIn(page, "123");
        await page.locator(byTestId("send")).click();
        await notifications(page, 2);
        await page.locator(`${byTestId("send-result")} .good`).waitFor();
        await page.locator(byTestId("more")).click();
        await page.locator(byTestId("snippets")).click();
        await choose(page, "snippet-browser");
        await check("after sending");
        contrasts.push(await page.locator(".answer dt").first().evaluate(contrast));
        await page.locator(byTestId("composer-users")).fill("absent-user");
        await page.locator(byTestId("send")).click();
        await page.locator(`${byTestId("send-result")} .warn`).waitFor();
        await check("after sending to an absent user");
        contrasts.push(await page.locator(".answer dt").first().evaluate(contrast));
        await page.locator(byTestId("composer-users")).fill(" , ");
        await page.locator(byTestId("send")).click();
        await page.locator(`${byTestId("send-result")} .bad`).waitFor();
        await page.locator(byTestId("connection-toggle")).first().click();
        await check("with an error");
        await context.close();
      }
    }
  }
  return { violations, contrasts, runs };
});

/** Return the contrast of an element's text and background (WCAG 2, relative luminance). */
function contrast(node) {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [red, green, blue] = channels(color)
      .slice(0, 3)
      .map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  let behind = node;
  while ((channels(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  let opacity = 1;
  for (let each = node; each; each = each.parentElement) opacity *= Number(getComputedStyle(each).opacity);
  const background = getComputedStyle(behind).backgroundColor;
  const mixed = channels(getComputedStyle(node).color).map((value, index) => value * opacity + channels(background)[index] * (1 - opacity));
  const [low, high] = [luminance(`rgb(${mixed.slice(0, 3).join(",")})`), luminance(background)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
