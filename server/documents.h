// The operator's documents, as the build found them in docs/.
#ifndef QKSCOPE_SERVER_DOCUMENTS_H_
#define QKSCOPE_SERVER_DOCUMENTS_H_

#include <vector>

#include "server/common/document.h"

namespace qk {

std::vector<Document> Documents();

}  // namespace qk

#endif  // QKSCOPE_SERVER_DOCUMENTS_H_
