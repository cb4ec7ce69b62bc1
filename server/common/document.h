// A document that the server carries with it.
#ifndef QKSCOPE_SERVER_COMMON_DOCUMENT_H_
#define QKSCOPE_SERVER_COMMON_DOCUMENT_H_

namespace qk {

// Both strings live as long as the process.
struct Document {
  const char* name;  // "operating.md"
  const char* text;  // UTF-8
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_DOCUMENT_H_
