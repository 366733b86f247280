"use strict";
// Pointing at a trial tells its figures and marks the same trial in the other plots. Without this script the
// marks' own titles still do the first.
(() => {
  const tip = document.getElementById("tip");

  function show(mark) {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.left + box.width / 2 + 12, innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (above > 8 ? above : box.bottom + 8) + "px";
    twins(mark, true);
  }

  function hide(mark) {
    tip.hidden = true;
    twins(mark, false);
  }

  function twins(mark, on) {
    const number = mark.dataset.trial;
    if (number === undefined) return;
    for (const other of document.querySelectorAll(`[data-trial="${number}"]`)) {
      other.classList.toggle("twin", on && other !== mark);
    }
  }

  for (const mark of document.querySelectorAll(".trial, .reference")) {
    mark.querySelector("title").remove();
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", () => hide(mark));
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", () => hide(mark));
  }

  // Light, dark or as the system has it; printed pages and pages without this script follow the system.
  const schemes = [["light dark", "as the system"], ["light", "light"], ["dark", "dark"]];
  const button = document.getElementById("scheme");
  button.hidden = false;
  button.addEventListener("click", () => {
    schemes.push(schemes.shift());
    document.documentElement.style.colorScheme = schemes[0][0];
    button.textContent = "colours: " + schemes[0][1];
  });

  // One stop of the Tab key for each plot; the arrow keys go from mark to mark.
  for (const plot of document.querySelectorAll(".trials")) {
    const marks = [...plot.querySelectorAll(".trial")];
    plot.addEventListener("keydown", (event) => {
      const at = marks.indexOf(document.activeElement);
      const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") tip.hidden = true;
      if (at < 0 || next === undefined || !marks[next]) return;
      event.preventDefault();
      marks[at].tabIndex = -1;
      marks[next].tabIndex = 0;
      marks[next].focus();
    });
  }
})();
