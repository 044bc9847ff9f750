// From the whole to the part: a press on a part of the map, or on a line of the contents, leads to its chapter, and the
// chapter's figure grows out of the part. The browser itself follows the link, at once and exactly, so the address and Back
// work as everywhere; only the picture of the figure moves. Without motion, if the reader prefers that.

(() => {
  "use strict";
  const TIME = { duration: 480, easing: "cubic-bezier(0.25, 0, 0.1, 1)" };

  const isVisible = ({ top, bottom, width }) => width > 0 && bottom > 0 && top < innerHeight;

  /** The heading gets the focus, so that the keyboard goes on from the chapter. */
  function arrive(section) {
    (section.querySelector("h2 a") || section).focus({ preventScroll: true });
  }

  /** Shows an element as if it came from another place, and were as small as the part there. */
  function grow(element, from) {
    const to = element.getBoundingClientRect();
    if (!to.width || !to.height) return;
    const move = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
    const scale = `scale(${from.width / to.width}, ${from.height / to.height})`;
    const start = { transformOrigin: "0 0", transform: `${move} ${scale}`, opacity: 0.25 };
    element.animate([start, { transformOrigin: "0 0", transform: "none", opacity: 1 }], TIME);
  }

  addEventListener("click", (event) => {
    const link = event.target.closest?.(".contents a[href^='#'], .model-map a[href^='#']");
    const section = link && document.getElementById(link.hash.slice(1));
    if (!section || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const from = (link.querySelector(".small-part") || link).getBoundingClientRect();
    // The browser follows the link after this; before the next picture, everything is in its place.
    setTimeout(() => {
      arrive(section);
      requestAnimationFrame(() => {
        if (!isVisible(from) || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
        const figure = section.querySelector(".diagram");
        const isNear = figure && isVisible(figure.getBoundingClientRect());
        grow(isNear ? figure : section.querySelector("h2"), from);
      });
    });
  });
})();
