#include "client/qkctl/commands/completion_scripts.h"

namespace qk::client {

const char kBashCompletion[] = R"(# bash completion for qkctl
_qkctl() {
  # bash has split words at = and : too. They are put together again, up to the
  # cursor.
  local rest=${COMP_LINE:0:COMP_POINT} words=() piece i
  for ((i = 0; i <= COMP_CWORD; i++)); do
    piece=${COMP_WORDS[i]}
    if ((i == 0)) || [[ $rest == [[:space:]]* ]]; then
      words+=("")
      rest=${rest#"${rest%%[![:space:]]*}"}
    fi
    ((i < COMP_CWORD)) || piece=$rest
    words[-1]+=$piece
    rest=${rest#"$piece"}
  done
  # bash replaces only what follows the last of those characters.
  local word=${words[-1]} kept= breaks=
  [[ $COMP_WORDBREAKS != *=* ]] || breaks+==
  [[ $COMP_WORDBREAKS != *:* ]] || breaks+=:
  [[ -z $breaks ]] || kept=${word%"${word##*[$breaks]}"}

  local lines=() line value=$word
  mapfile -t lines < <("${1/#\~/$HOME}" completion words -- \
    "${words[@]:1}" 2>/dev/null)
  if [[ ${lines[0]-} == files ]]; then
    compopt -o filenames
    [[ $word != --*=* ]] || value=${word#*=}
    mapfile -t lines < <(compgen -f -- "$value")
    lines=("" "${lines[@]/#/"${word%"$value"}"}")
  fi
  COMPREPLY=()
  for line in "${lines[@]:1}"; do
    line=${line%%$'\t'*}
    COMPREPLY+=("${line#"$kept"}")
  done
}
complete -F _qkctl qkctl
)";

const char kZshCompletion[] = R"(#compdef qkctl
# zsh completion for qkctl
_qkctl() {
  local -a lines found shown
  local line
  lines=("${(@f)$("${(Q)words[1]/#\~/$HOME}" completion words -- \
    "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
  if [[ $lines[1] == files ]]; then
    compset -P '--*='
    _files
    return
  fi
  for line in "${(@)lines[2,-1]}"; do
    found+=("${line%%$'\t'*}")
    shown+=("${line/$'\t'/  -- }")
  done
  compadd -l -d shown -a found
}
if [[ $funcstack[1] == _qkctl ]]; then
  _qkctl "$@"
else
  compdef _qkctl qkctl
fi
)";

}  // namespace qk::client
