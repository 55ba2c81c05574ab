// Numbers and times as people read them.

export const nothing = "–";

export function count(value: number | null | undefined): string {
  if (value == null || !isFinite(value)) return nothing;
  if (value >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (value >= 1e4) return Math.round(value / 1e3) + " k";
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toFixed(value >= 10 ? 0 : 1);
}

export function bytes(value: number | null | undefined): string {
  if (value == null || value <= 0) return nothing;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function percent(value: number | null | undefined): string {
  return value == null || !isFinite(value) ? nothing : `${Math.round(100 * value)}%`;
}

export function seconds(value: number | null | undefined): string {
  if (value == null || !isFinite(value)) return nothing;
  if (value === 0) return "0";
  if (value < 1) return `${value * 1000 >= 10 ? Math.round(value * 1000) : (value * 1000).toFixed(1)} ms`;
  if (value < 100) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return `${Math.round(value / 60)} min`;
}

const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;

export function minute(ms: number): string {
  return new Date(ms).toLocaleTimeString([], time);
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString([], { ...time, second: "2-digit" });
}

export function day(ms: number): string {
  const date = new Date(ms);
  return date.toDateString() === new Date().toDateString()
    ? date.toLocaleTimeString([], time)
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

export function plural(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}
