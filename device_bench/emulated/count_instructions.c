/* A plugin for QEMU's user emulation: counts the instructions of a process in a file that it can map.
 *
 *   qemu-aarch64 -plugin libcount_instructions.so,folder=FOLDER program
 *
 * The file is FOLDER/PID, eight bytes in the host's order. Counting is not atomic: right with one thread.
 * Debian ships no header for plugins, so what is used of QEMU 7.2's plugin interface is declared here.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*translated_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_callback callback);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_op op,
                                                     void *counter, uint64_t amount);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t *counter;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, counter,
                                             qemu_plugin_tb_n_insns(block));
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                               char **argv)
{
    char path[4096];
    (void)info;
    if (argc != 1 || strncmp(argv[0], "folder=", 7) != 0)
        return 1;
    if (snprintf(path, sizeof path, "%s/%d", argv[0] + 7, (int)getpid()) >= (int)sizeof path)
        return 1;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof *counter) != 0)
        return 1;
    counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (counter == MAP_FAILED)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
