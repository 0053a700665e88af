// Every text that is seen with a contrast (WCAG 2.2, 1.4.3) below 4.5, by computed colours: the
// ratio, the element, and how the text begins; the lowest first.
const LEAST = 4.5;
const parse = (text) => {
  const numbers = text.match(/[\d.]+/g).map(Number);
  return [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
// CSS: filter: invert(.9) hue-rotate(180deg), which the reference has in the dark.
const filtered = ([red, green, blue, alpha]) => {
  const [r, g, b] = [red, green, blue].map((each) => 0.9 * 255 - 0.8 * each);
  const rotated = [
    -0.574 * r + 1.43 * g + 0.144 * b,
    0.426 * r + 0.43 * g + 0.144 * b,
    0.426 * r + 1.43 * g - 0.856 * b,
  ];
  return [...rotated.map((each) => Math.min(255, Math.max(0, each))), alpha];
};
const luminance = (colour) => {
  const [r, g, b] = colour
    .map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (element) => {
  const chain = [];
  for (let each = element; each; each = each.parentElement) chain.unshift(each);
  const styles = chain.map((each) => getComputedStyle(each));
  const from = styles.findIndex((style) => style.filter.includes("invert"));
  let below = document.documentElement.dataset.bsTheme === "dark" ? [0, 0, 0] : [255, 255, 255];
  styles.forEach((style, i) => {
    const colour = parse(style.backgroundColor);
    below = over(from >= 0 && i >= from ? filtered(colour) : colour, below);
  });
  let text = parse(styles.at(-1).color);
  if (from >= 0) text = filtered(text);
  text[3] *= styles.reduce((opacity, style) => opacity * Number(style.opacity), 1);
  const [high, low] = [luminance(over(text, below)), luminance(below)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
const isSeen = (element) =>
  !["OPTION", "SCRIPT", "STYLE", "NOSCRIPT", "TITLE"].includes(element.tagName) &&
  [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) &&
  element.checkVisibility({ checkVisibilityCSS: true }) &&
  element.getBoundingClientRect().width > 0;
return [...document.querySelectorAll("body *")]
  .filter(isSeen)
  .map((each) => [ratio(each), `${each.tagName}.${each.className}`, each.textContent.trim()])
  .filter(([found]) => found < LEAST)
  .map(([found, name, text]) => [Math.round(found * 100) / 100, name, text.slice(0, 40)])
  .sort((a, b) => a[0] - b[0]);
