// A page on paper: what is folded is opened, and charts are as wide as the paper (A4 less its margins), so that their
// words keep their size. Afterwards all is as before.
const PAPER = 660; // pixels
let folded = [];

addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("main details:not([open], .columns)")];
  for (const part of folded) part.open = true;
  for (const view of Object.values(window.views ?? {})) view.width(PAPER).resize().run();
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
  dispatchEvent(new Event("resize")); // Vega asks for the width of the page again
});
