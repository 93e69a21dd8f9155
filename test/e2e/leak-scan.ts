/** Patterns that no text may contain, whatever issued the credential. */
const shapes: [what: string, shape: RegExp][] = [
  ['a JWT', /eyJ[\w-]{10,}\.eyJ[\w-]{10,}\./],
  ['a private key', /PRIVATE KEY-----/],
  ['an Authorization header', /\b(bearer|basic) [\w+/=.-]{16,}/i],
]

/**
 * Where secrets appear in texts, without quoting them: `secret 3, in base64, in /metrics`. A
 * secret is looked for as it is, URL-encoded, and in base64 at each of the three offsets that it can
 * have in a longer text.
 */
export function findLeaks(texts: ReadonlyMap<string, string>, secrets: Iterable<string>): string[] {
  const shaped = [...texts].flatMap(([name, text]) =>
    shapes.filter(([, shape]) => shape.test(text)).map(([what]) => `${what}, in ${name}`),
  )
  const found = [...new Set(secrets)].flatMap((secret, index) => {
    const forms = formsOf(secret)
    return [...texts].flatMap(([name, text]) =>
      forms
        .filter(({ form }) => text.includes(form))
        .map(({ how }) => `secret ${index}, ${how}, in ${name}`),
    )
  })
  return [...shaped, ...found]
}

function formsOf(secret: string): { how: string; form: string }[] {
  const offsets = [0, 1, 2].flatMap(offset => {
    const form = base64At(secret, offset)
    return [form, form.replaceAll('+', '-').replaceAll('/', '_')]
  })
  return [
    { how: 'as it is', form: secret },
    { how: 'as JSON', form: JSON.stringify(secret).slice(1, -1) },
    { how: 'URL-encoded', form: encodeURIComponent(secret) },
    ...offsets.map(form => ({ how: 'in base64', form })),
  ].filter(({ how, form }) => form !== '' && (how === 'as it is' || form !== secret))
}

/** The base64 characters that depend on the secret alone if `offset` bytes precede it (3 bytes become 4). */
function base64At(secret: string, offset: number): string {
  const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(secret)])
  const first = Math.ceil((offset * 8) / 6)
  return bytes.toString('base64').slice(first, Math.floor((bytes.length * 8) / 6))
}
