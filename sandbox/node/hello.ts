import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolder } from '../processes.ts'
import { pushImage, type Route } from '../registry.ts'
import { tool } from '../tools.ts'
import { packImage } from './pack-image.ts'

/**
 * Pushes an image whose container logs a greeting and then waits. It has a shell and the file
 * /hello.txt. Resolves with its digest.
 */
export async function pushHello(
  reference: string,
  credential: { username: string; password: string },
  route: Route,
): Promise<string> {
  const { path, remove } = await makeFolder('hello')
  try {
    const [archive, text] = [join(path, 'hello.tar'), join(path, 'hello.txt')]
    await writeFile(text, 'This is the file.\n')
    const files = {
      '/bin/gosh': await tool('gosh'),
      '/bin/sleep': await tool('sleep'),
      '/hello.txt': text,
    }
    const entrypoint = ['/bin/gosh', '-c', 'echo "hello from $HOSTNAME"; sleep 1h']
    await packImage({ reference, files, entrypoint, env: { PATH: '/bin' }, user: '0' }, archive)
    return await pushImage(reference, credential, route, archive)
  } finally {
    await remove()
  }
}
