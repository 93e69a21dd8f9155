import type { FastifyInstance } from 'fastify'

/**
 * Listens at an address and port. A machine without IPv6 has no `::`; every address of it is then
 * 0.0.0.0, which is what is meant. Rejects where the port is taken.
 */
export async function listen(
  server: Pick<FastifyInstance, 'listen'>,
  { address, port }: { address: string; port: number },
): Promise<void> {
  try {
    await server.listen({ host: address, port })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (address !== '::' || code !== 'EAFNOSUPPORT') throw error
    await server.listen({ host: '0.0.0.0', port })
  }
}
