// Keys of every page: "/" finds, "j" and "k" move in a list, Enter opens its row, "?" lists the keys.
const rows = () => [...document.querySelectorAll("table.rows tbody tr:has(a)")];
const isTyping = (target) => target.closest("input, select, textarea, [contenteditable]");

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("at"));
  const next = Math.min(all.length - 1, Math.max(0, at + step));
  all.forEach((row, i) => row.classList.toggle("at", i === next));
  all[next].querySelector("a").focus({ preventScroll: true });
  all[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const find = document.querySelector("#find");
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    find.focus();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const actions = {
    "/": () => find.focus(),
    "j": () => move(1),
    "k": () => move(-1),
    "?": () => document.querySelector("#keys").showModal(),
  };
  if (!(event.key in actions)) return;
  event.preventDefault();
  actions[event.key]();
});
