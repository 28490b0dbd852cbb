// Keeps the table of what has arrived up to date. Without scripts, reloading the page does.
const rows = document.getElementById("variations");

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (kind === "th") made.scope = "row";
  return made;
}

async function refresh() {
  try {
    const told = await (await fetch(rows.dataset.url)).json();
    const found = Object.entries(told.variations ?? {});
    if (found.length) {
      document.getElementById("events").textContent = told.events;
      rows.replaceChildren(...found.map(([key, row]) => {
        const made = document.createElement("tr");
        made.append(cell("th", key), cell("td", row.visitors), cell("td", row.converted));
        return made;
      }));
    }
  } catch {
    // The shop is closed; what is shown stays.
  }
  setTimeout(refresh, 1000);
}

if (rows) refresh();
