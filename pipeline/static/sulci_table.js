// Sulci of brains as a table, of one person or of one sulcus, with the picture of that person.
"use strict";

function foldnormSulciTable(figure) {
  const find = (name) => figure.querySelector(`[data-part="${name}"]`);
  const data = JSON.parse(find("data").textContent);
  const brain = find("brain"), sulcus = find("sulcus"), picture = find("picture");

  function row(n) {
    const made = document.createElement("tr");
    data.rows[n].forEach((text, column) => {
      const cell = made.insertCell();
      if (column === 2) {
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = data.colours[data.sulci[n]];
        cell.append(swatch);
      }
      cell.append(text);
    });
    return made;
  }

  function draw() {
    const isWanted = (select, value) => select.value === "" || Number(select.value) === value;
    const wanted = data.rows.map((_, n) => n).filter((n) =>
      isWanted(brain, data.brains[n]) && isWanted(sulcus, data.sulci[n]));
    const isChosen = brain.value !== "" || sulcus.value !== "";
    const shown = isChosen ? wanted : wanted.slice(0, data.listed);
    find("rows").replaceChildren(...shown.map(row));
    find("count").textContent = `${shown.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} rows`;
    if (picture) {
      const content = brain.value === "" ? null : data.pictures[Number(brain.value)];
      picture.hidden = !content;
      if (content) picture.src = content;
      picture.alt = `Named sulci of ${brain.selectedOptions[0].textContent}`;
    }
    figure.dataset.shown = `${brain.value}/${sulcus.value}`;
  }

  [brain, sulcus].forEach((select) => select.addEventListener("change", draw));
  draw();
}
