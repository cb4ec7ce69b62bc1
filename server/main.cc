// The main function of qkscoped.
#include "server/process.h"

int main(int argc, char** argv) {
  return qk::RunProcess({argv + 1, argv + argc});
}
