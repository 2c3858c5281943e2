"use strict";
const collator = new Intl.Collator(undefined, {numeric: true});

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => {
        const cell = row.cells[column], text = cell.dataset.v ?? cell.textContent;
        return {text, number: cell.classList.contains("n") ? parseFloat(text.replace(/[<,]/g, "")) : NaN};
      };
      const keyed = [...body.rows].map(row => [key(row), row]);
      keyed.sort(([one], [other]) => sign * (one.number - other.number || collator.compare(one.text, other.text)));
      body.append(...keyed.map(pair => pair[1]));
      table.dispatchEvent(new Event("sorted"));
    });
  });
}

// Narrow windows show the cells below each other, which takes their roles away.
function keepRoles(table) {
  const roles = {TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell"};
  for (const one of [table, ...table.querySelectorAll("thead, tbody, tr, td, th")])
    one.setAttribute("role", roles[one.tagName] ?? (one.scope === "col" ? "columnheader" : "rowheader"));
}

function filterable(table) {
  keepRoles(table);
  const controls = document.getElementById("filter"), change = document.getElementById("change");
  const search = document.getElementById("search"), count = document.getElementById("count");
  const more = document.getElementById("more"), step = 100;
  const texts = new Map([...table.tBodies[0].rows].map(row => [row, row.textContent.toLowerCase()]));
  let limit = step;
  const show = () => {
    const words = search.value.toLowerCase(), wanted = change.value;
    let matching = 0;
    for (const row of table.tBodies[0].rows) {
      const matches = (!wanted || row.dataset.change === wanted) && texts.get(row).includes(words);
      matching += matches;
      row.hidden = !matches || matching > limit;
    }
    const shown = Math.min(matching, limit);
    count.textContent = `${shown} of ${matching} matching rows shown (${texts.size} in all)`;
    more.hidden = shown === matching;
  };
  const again = () => { limit = step; show(); };
  change.addEventListener("change", again);
  search.addEventListener("input", again);
  more.addEventListener("click", () => { limit += step; show(); });
  table.addEventListener("sorted", show);
  controls.hidden = false;
  show();
}

document.querySelectorAll("table[data-sortable]").forEach(sortable);
const rows = document.getElementById("compared");
if (rows) filterable(rows);
