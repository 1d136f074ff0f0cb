"use strict";
// Values of figures under the pointer. Without this script they are the shapes' own titles.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll(".values title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
const show = (event) => {
  const mark = event.target.closest?.("[data-tip]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(6, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${box.top > tip.offsetHeight + 10 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
};
document.addEventListener("pointerover", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);

// Tables sorted by a click on a header: numbers from the highest, words from A, and back.
const key = (row, column) => {
  const text = row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
};
const compare = (one, other) => (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other)));
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const numbers = rows.some((row) => typeof key(row, column) === "number");
      const before = header.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : !numbers;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const known = rows.filter((row) => key(row, column) !== "");
      known.sort((one, other) => (ascending ? 1 : -1) * compare(key(one, column), key(other, column)));
      table.tBodies[0].append(...known, ...rows.filter((row) => key(row, column) === ""));
    });
  });
}
