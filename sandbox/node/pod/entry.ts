/**
 * What is understood of a field: anything, or what a function finds nothing against, or the fields
 * of an object.
 */
export type Entry = true | ((value: unknown, path: string) => string[]) | Table
export interface Table {
  [field: string]: Entry
}

/** What `value` has that `entry` does not know, one sentence each, with the path to it. */
export function check(value: unknown, entry: Entry, path: string): string[] {
  if (entry === true || value === undefined || value === null) return []
  if (typeof entry === 'function') return entry(value, path)
  return Object.entries(value).flatMap(([field, inner]) => {
    const known = entry[field]
    const at = `${path}.${field}`
    if (known !== undefined) return check(inner, known, at)
    return inner === undefined ? [] : [`${at} is not understood by this node`]
  })
}

/** These values and no others. */
export function only(...values: unknown[]): Entry {
  return (value, path) =>
    values.includes(value)
      ? []
      : [`${path}: this node can do ${values.map(String).join(', ')}, not ${String(value)}`]
}

/** A list of such objects. */
export function each(table: Table): Entry {
  return (values, path) =>
    (values as unknown[]).flatMap((value, index) => check(value, table, `${path}[${index}]`))
}

/** A map with these keys and no others. */
export function every(...keys: string[]): Entry {
  return (map, path) =>
    Object.keys(map as object)
      .filter(key => !keys.includes(key))
      .map(key => `${path}: this node has no label ${key}`)
}
