/** Every secret text that the environment ever issued or accepted, for the leak scan. */
export interface SecretBook {
  add(secret: string): void
  /** The token, and its signature alone: a log that contains only the end of a token leaks too. */
  addJwt(token: string): void
  /** Also as it stands in a pull secret and in a Basic header. */
  addRegistryToken(token: string): void
  all(): string[]
}

export function createSecretBook(): SecretBook {
  const known = new Set<string>()
  const addJwt = (token: string) => {
    known.add(token)
    const signature = token.split('.')[2]
    if (signature) known.add(signature)
  }
  return {
    add: secret => {
      if (secret) known.add(secret)
    },
    addJwt,
    addRegistryToken: token => {
      addJwt(token)
      known.add(Buffer.from(`token:${token}`).toString('base64'))
    },
    all: () => [...known],
  }
}
