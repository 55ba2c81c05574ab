// Light, dark, or as the system has it.
import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
const kTheme = "cachalot.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function stored(): Theme {
  try {
    const value = localStorage.getItem(kTheme);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

export const theme = signal<Theme>(stored());
export const isDark = signal(system.matches);

effect(() => {
  const chosen = theme.value;
  const update = () => {
    isDark.value = chosen === "auto" ? system.matches : chosen === "dark";
    document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
  };
  update();
  try {
    if (chosen === "auto") localStorage.removeItem(kTheme);
    else localStorage.setItem(kTheme, chosen);
  } catch {
    // Then it holds until the page is left.
  }
  system.addEventListener("change", update);
  return () => system.removeEventListener("change", update);
});

// A colour of style.css, for what is drawn on a canvas.
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
