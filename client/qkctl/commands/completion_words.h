// Completes a command line of qkctl, from the table of commands and their
// flags. Nothing here fails: where there is nothing to offer, the answer is
// empty.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_WORDS_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_WORDS_H_

#include <functional>
#include <string>
#include <vector>

#include "client/qkctl/command.h"

namespace qk::client {

struct Candidate {
  std::string word;  // whole, with what has been typed of it
  std::string help;  // may be empty
};

struct Completion {
  std::vector<Candidate> candidates;
  bool files = false;  // the shell offers names of files instead
};

// Returns the names of the server's models. `flags` has those of the command
// line that say which server that is and how to reach it.
using AskModels = std::function<std::vector<std::string>(
    const std::vector<std::string>& flags)>;

// `words` follow the program's name; the last one is completed. `global` has
// the flags that may stand before a command.
Completion CompleteWords(const std::vector<std::string>& words,
                         const std::vector<const Command*>& commands,
                         const std::vector<FlagText>& global,
                         const AskModels& ask_models);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_COMPLETION_WORDS_H_
