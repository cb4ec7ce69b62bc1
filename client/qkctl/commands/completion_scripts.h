// The completion scripts of bash and zsh. Each passes the words before the
// cursor to `qkctl completion words`, whose first line is "words" or "files",
// and whose other lines are a word, a tab and its explanation.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_SCRIPTS_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_SCRIPTS_H_

namespace qk::client {

extern const char kBashCompletion[];
extern const char kZshCompletion[];

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_SCRIPTS_H_
