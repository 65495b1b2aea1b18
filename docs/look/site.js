// What can be scrolled can be reached with the keyboard too (WCAG 2.1.1), and only that: a code block or a table that fits
// is no stop for the tab key. The theme does so for code, not for tables, and takes it back where there is a touch screen.
const reach = part => {
  const scrolls = part.scrollWidth > part.clientWidth
  if (scrolls && part.tabIndex !== 0) part.tabIndex = 0
  if (!scrolls && part.hasAttribute("tabindex")) part.removeAttribute("tabindex")
}
const sizes = new ResizeObserver(changes => changes.forEach(change => reach(change.target)))
const marks = new MutationObserver(changes => changes.forEach(change => reach(change.target)))
addEventListener("load", () => {
  for (const part of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap")) {
    sizes.observe(part)
    marks.observe(part, { attributeFilter: ["tabindex"] })
  }
  // One landmark per code block would hide those of the page.
  for (const part of document.querySelectorAll(".md-code__nav")) part.setAttribute("role", "none")
})
