// Text from outside, such as a file's name, as text that cannot steer a terminal, or as a word of a command line.

/** What moves the cursor, clears the screen, breaks lines or turns the writing direction around; line ends and tabs apart. */
const STEERING = /(?![\n\t])[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu;

/** Text with escapes in place of what would steer a terminal; lines stay lines. */
export function printable(text: string): string {
  return text.replace(STEERING, escape);
}

/** The same in one line. */
export function printableLine(text: string): string {
  return printable(text).replace(/[\n\t]/g, escape);
}

function escape(character: string): string {
  return JSON.stringify(character).slice(1, -1).replace(
    /[\u007f-\uffff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A path as a shell's command line takes it. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./~-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
