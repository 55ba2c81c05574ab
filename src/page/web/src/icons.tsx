// Small pictures, drawn with the text's colour.
import type { ComponentChildren } from "preact";

function icon(children: ComponentChildren) {
  return () => (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const PlusIcon = icon(<path d="M10 4v12M4 10h12" />);
export const SendIcon = icon(<path d="M10 16V4M5 9l5-5 5 5" />);
export const StopIcon = icon(<rect x="5.5" y="5.5" width="9" height="9" rx="1.5" class="solid" />);
export const EditIcon = icon(<path d="M4 16l.8-3.2L13.2 4.4a1.4 1.4 0 0 1 2 0l.4.4a1.4 1.4 0 0 1 0 2L7.2 15.2 4 16z" />);
export const RetryIcon = icon(<path d="M15.5 8A6 6 0 1 0 16 11M16 4v4h-4" />);
export const CopyIcon = icon(<path d="M7 7V4.5A1.5 1.5 0 0 1 8.5 3h7A1.5 1.5 0 0 1 17 4.5v7a1.5 1.5 0 0 1-1.5 1.5H13M4.5 7h7A1.5 1.5 0 0 1 13 8.5v7a1.5 1.5 0 0 1-1.5 1.5h-7A1.5 1.5 0 0 1 3 15.5v-7A1.5 1.5 0 0 1 4.5 7z" />);
export const TrashIcon = icon(<path d="M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6M8.5 9v4.5M11.5 9v4.5" />);
export const SettingsIcon = icon(<path d="M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4" />);
export const KeyIcon = icon(<path d="M9.5 10.5l6-6M13 7l2.5 2.5M11 12.5a3.5 3.5 0 1 1-3.5-3.5c1.2 0 3.5 1.3 3.5 3.5z" />);
export const MenuIcon = icon(<path d="M3 5.5h14M3 10h14M3 14.5h14" />);
export const ChartIcon = icon(<path d="M4 16V9M8 16V4M12 16v-5M16 16V7" />);
export const SunIcon = icon(<><circle cx="10" cy="10" r="3.2" /><path d="M10 2.5v2M10 15.5v2M2.5 10h2M15.5 10h2M4.7 4.7l1.4 1.4M13.9 13.9l1.4 1.4M15.3 4.7l-1.4 1.4M6.1 13.9l-1.4 1.4" /></>);
export const MoonIcon = icon(<path d="M16 12.2A6.7 6.7 0 0 1 7.8 4a6.7 6.7 0 1 0 8.2 8.2z" />);
export const AutoIcon = icon(<><circle cx="10" cy="10" r="6.5" /><path class="solid" d="M10 3.5a6.5 6.5 0 0 1 0 13z" /></>);
export const CloseIcon = icon(<path d="M5 5l10 10M15 5L5 15" />);
export const ToolIcon = icon(<path d="M12.5 3.5a4 4 0 0 0-4 5.3L3.5 13.8l2.7 2.7 5-5a4 4 0 0 0 5.2-5l-2.3 2.3-2.2-.5-.6-2.3 2.4-2.3a4 4 0 0 0-1.2-.2z" />);

export function Whale() {
  return (
    <svg class="whale" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path d="M4 15.5C4 11.4 7.2 9 11.6 9h3.2c5 0 7.7 3.3 9 6.2.6-.9.8-2.1.3-3.4-.2-.5.3-.9.7-.6 1 .7 1.7 1.7 1.9 2.8.9-.6 1.6-.7 2.3-.5.4.1.5.6.2.9-1.3 1.2-2.3 2-3 3.4C24.6 21 21.3 23 16.6 23h-6.1C6.5 23 4 20.2 4 15.5z" />
      <circle class="hole" cx="10.3" cy="15.6" r="1.1" />
      <path class="mouth" d="M5 18.6c2.5.9 5.2.9 7.6 0" />
    </svg>
  );
}
