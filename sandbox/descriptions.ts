/** The namespace of a token of pullpass; undefined: the mark of a leader, or a token of somebody else. */
export function namespaceOf({ description }: { description: string }): string | undefined {
  const [owner, , namespace] = description.split('/')
  return owner === 'pullpass' && namespace ? namespace : undefined
}
