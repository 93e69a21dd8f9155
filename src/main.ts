#!/usr/bin/env node
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { KubeConfig } from '@kubernetes/client-node'
import { Command, CommanderError } from 'commander'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { cleanUpOnce } from './commands/clean-up.ts'
import { removeWebhook } from './commands/remove-webhook.ts'
import { selftest } from './commands/selftest.ts'
import { type Config, ConfigError, readConfig } from './config/config.ts'
import { framesOf } from './failure.ts'
import { createKubernetesClient, type KubernetesClient } from './kubernetes/client.ts'
import { loadKubeConfig } from './kubernetes/kube-config.ts'
import { createApp } from './service.ts'

const program = new Command('pullpass')
  .description('Gives the pods of opted-in namespaces what they need to pull from their registry')
  .exitOverride()

program
  .command('serve')
  .description('answer admission reviews and keep the pull secrets')
  .requiredOption('--config <file>', 'settings (YAML)')
  .action(({ config }: { config: string }) => serve(readSettings(config)))

program
  .command('clean-up')
  .description('revoke and delete what was made for namespaces that are not opted in any more')
  .requiredOption('--config <file>', 'settings (YAML)')
  .action(async ({ config }: { config: string }) => {
    const done = await cleanUpOnce({ ...optionsOf(readSettings(config)), metrics: new Registry() })
    console.log(done.length > 0 ? done.join('\n') : 'there was nothing to clean up')
  })

program
  .command('selftest')
  .description('create a dry-run pod and see that it comes back with the reference')
  .requiredOption('--namespace <name>', 'a labelled namespace')
  .requiredOption('--image <reference>', 'an image of the registry; it need not exist')
  .option('--secret <name>', 'name of the pull secret', 'pullpass-registry')
  .action(async about => console.log(await selftest(ownClient(), about)))

program
  .command('remove-webhook')
  .description('delete the webhook configuration: no pod is sent to pullpass any more')
  .requiredOption('--name <name>', 'of the MutatingWebhookConfiguration')
  .action(async ({ name }) => console.log(await removeWebhook(ownClient(), name)))

/** Runs until SIGTERM or SIGINT. */
async function serve(config: Config): Promise<void> {
  const options = optionsOf(config)
  const { logger } = options
  const app = createApp(options)
  const signalled = new Promise(resolve => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, resolve)
  })
  process.on('unhandledRejection', error => {
    logger.error({ at: framesOf(error) }, 'a failure that nobody waited for')
  })
  await Promise.race([app.start(), signalled])
  await signalled
  await app.stop()
  logger.info('stopped')
}

function optionsOf(config: Config) {
  return {
    config,
    kubeConfig: readKubeConfig(config.kubernetes.kubeconfig),
    identity: `${hostname()}_${randomUUID()}`,
    logger: pino({ level: config.log.level, base: null }),
  }
}

/** For commands that need the API server and no settings: in the cluster, or by $KUBECONFIG. */
function ownClient(): KubernetesClient {
  return createKubernetesClient({
    kubeConfig: readKubeConfig(undefined),
    timeoutMs: 10_000,
  })
}

/** The parser's own message quotes the file, and so perhaps a token. */
function readKubeConfig(file: string | undefined): KubeConfig {
  try {
    return loadKubeConfig(file, process.env)
  } catch {
    throw new ConfigError([`the kubeconfig ${file ?? '(by default)'} cannot be read`])
  }
}

function readSettings(file: string): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError([`the file ${file} cannot be read (${code})`])
  }
  return readConfig(text, process.env)
}

/** 0 done, 1 failed, 2 unusable configuration or arguments. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  console.error(`pullpass: ${(error as Error).message}`)
  return error instanceof ConfigError ? 2 : 1
}

program.parseAsync().then(
  () => process.exit(0),
  error => process.exit(exitCodeOf(error)),
)
